"""Restores on CRI-O, as far as they can be run without it; see tests/e2e/crio/runtime.py for what is played."""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shared.contract import POD_CHECKPOINT, ImageFormat
from shared.run import run
from tests.e2e.conftest import WORKLOAD
from tests.e2e.crio.runtime import Crio, CrioError, Running, Wrapped
from tests.e2e.node.counter import CREATED, DELETED
from tests.e2e.node.image import busybox_image
from tests.e2e.node.machine import Machine
from tests.e2e.node.network import Network
from tests.e2e.node.places import CHECKOUT
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import base_root
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import KEEPS_NOTHING

BASE = "crio/base:1"
COMMAND = ("sh", "-c", WORKLOAD)


@pytest.fixture(scope="session")
def crio_node(network: Network, registry: Registry) -> Iterator[Crio]:
    """Configured by ``nri-restore node configure``, with the daemon running."""
    registry.push(busybox_image(base_root("containerd-1.7"), {"etc/changed": b"original\n"}), BASE)
    with Machine("containerd-1.7", network, "crio") as machine, Crio(machine) as crio:
        machine.path("/etc/nri-restore/config.toml").write_text(KEEPS_NOTHING)
        crio.configure("runc")
        crio.start_daemon()
        yield crio


@pytest.fixture
def crio(crio_node: Crio) -> Iterator[Crio]:
    yield crio_node
    crio_node.remove_all()


@pytest.fixture(scope="session")
def archive(crio_node: Crio, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taken(crio_node, registry, tmp_path_factory.mktemp("crio"))


def taken(crio: Crio, registry: Registry, folder: Path) -> Path:
    """A checkpoint of a container that ran under our handler."""
    container = crio.create(crio.run_pod_sandbox("first"), pulled(crio, registry, BASE), *COMMAND)
    crio.start(container)
    wait_for(lambda: len(crio.log(container)) > 3, "the container to count")
    path = folder / "crio.tar"
    path.write_bytes(crio.checkpoint(container))
    crio.remove_all()
    return path


def pulled(crio: Crio, registry: Registry, name: str) -> str:
    return crio.pull(f"{registry.address}/{name}")


def built(registry: Registry, archive: Path, image_format: ImageFormat) -> str:
    name = f"crio/counter:{image_format}"
    words = ["build", archive, "-t", f"{registry.address}/{name}", "--format", image_format, "--push", "--plain-http"]
    command = [sys.executable, "-c", "from kubectl_restore.cli import main; main()", *words]
    run([*command, "--base", f"{registry.address}/{BASE}"], timeout_s=300, env={"PYTHONPATH": str(CHECKOUT)})
    return name


def numbers(lines: list[str]) -> list[int]:
    return [int(line) for line in lines if line.isdecimal()]


def inside(crio: Crio, container: Running, *command: str) -> str:
    return crio.oci("exec", container.id, *command)


@pytest.mark.parametrize("wrapped", ["crun", "runc"])
def test_counter_resumes_from_a_layered_image(crio: Crio, registry: Registry, tmp_path: Path, wrapped: Wrapped) -> None:
    crio.configure(wrapped)
    image = pulled(crio, registry, built(registry, taken(crio, registry, tmp_path), "layered"))
    container = crio.create(crio.run_pod_sandbox("second"), image)
    crio.start(container)
    seen = len(numbers(crio.log(container)))
    wait_for(lambda: len(numbers(crio.log(container))) > seen, "new numbers")
    counted = numbers(crio.log(container))
    assert counted == list(range(1, len(counted) + 1))
    assert inside(crio, container, "hostname") == "second\n"
    assert inside(crio, container, "cat", CREATED, "/etc/changed") == "made\nchanged\n"
    assert inside(crio, container, "sh", "-c", f"ls -d {DELETED} /.nri-restore 2>&1 | grep -c 'No such'") == "2\n"
    assert crio.machine.path(f"/run/nri-restore/{container.id}/restored").exists()
    with tarfile.open(fileobj=io.BytesIO(crio.checkpoint(container))) as again:
        assert again.getmember("checkpoint/inventory.img").size > 0
    assert crio.stop(container) == 3
    assert crio.log(container)[-1] == "bye"
    crio.remove(container)
    wait_for(lambda: not crio.machine.path(f"/run/nri-restore/{container.id}").exists(), "the plan to go")
    wait_for(lambda: not list(crio.machine.path("/run/nri-restore/views").iterdir()), "its view to go")


POD_CGROUPS = """\
for top in /sys/fs/cgroup/*; do
	[ -L $top ] && continue
	mkdir -p $top{group}; for group in $top{top} $top{group}; do for file in cpuset.cpus cpuset.mems; do
		[ ! -f $group/$file ] || cat $top/$file >$group/$file
	done; done
done"""
"""The kubelet's part: the pod's cgroup in every hierarchy of version 1, with processors and memory nodes."""


@pytest.mark.parametrize("wrapped", ["crun", "runc"])
def test_container_with_a_cgroup_namespace_of_version_1_has_its_own_again(
    crio: Crio, registry: Registry, tmp_path: Path, wrapped: Wrapped
) -> None:
    def begin(name: str, image: str, *command: str) -> Running:
        sandbox = replace(crio.run_pod_sandbox(name), own_cgroups=True)
        crio.machine.sh(POD_CGROUPS.format(group=sandbox.cgroup, top="/kubepods"))
        container = crio.create(sandbox, image, *command)
        crio.start(container)
        wait_for(lambda: len(numbers(crio.log(container))) > 3, "the container to count")
        return container

    def seen(container: Running) -> tuple[list[str], str]:
        groups = inside(crio, container, "cat", "/proc/self/cgroup").splitlines()
        return groups, inside(crio, container, "readlink", "/proc/self/ns/cgroup")

    crio.configure(wrapped)
    first = begin("own", pulled(crio, registry, BASE), *COMMAND)
    before, _ = seen(first)
    path = tmp_path / "own.tar"
    path.write_bytes(crio.checkpoint(first))
    crio.remove_all()
    second = begin("again", pulled(crio, registry, built(registry, path, "layered")))
    groups, namespace = seen(second)
    assert groups == before
    assert any(line.endswith(":memory:/") for line in groups), groups
    assert namespace != crio.machine.sh("readlink /proc/1/ns/cgroup")


def test_archive_image_is_refused_with_what_to_do(crio: Crio, registry: Registry, archive: Path) -> None:
    image = pulled(crio, registry, built(registry, archive, "archive"))
    with pytest.raises(CrioError, match=r"LayeredImageNeeded: on CRI-O only layered .* --format layered"):
        crio.create(crio.run_pod_sandbox("archive"), image)


def test_annotation_is_refused_with_what_to_do(crio: Crio, registry: Registry) -> None:
    sandbox = crio.run_pod_sandbox("annotated", **{POD_CHECKPOINT: f"{registry.address}/crio/counter:layered"})
    with pytest.raises(CrioError, match="LayeredImageNeeded"):
        crio.create(sandbox, pulled(crio, registry, BASE), *COMMAND)


def test_what_crio_restores_by_itself_does_not_pass_unchecked(crio: Crio, registry: Registry, archive: Path) -> None:
    folder = "/var/tmp/unpacked"
    crio.machine.path("/var/tmp/crio.tar").write_bytes(archive.read_bytes())
    crio.machine.sh(f"mkdir {folder}; tar -C {folder} -xf /var/tmp/crio.tar")
    image = pulled(crio, registry, BASE)
    container = crio.create(crio.run_pod_sandbox("itself"), image, *COMMAND, restores_from=folder)
    with pytest.raises(CrioError, match="RestoredByRuntime: the runtime would restore this container by itself"):
        crio.start(container)


def test_handler_that_drops_our_annotation_is_named(crio: Crio, registry: Registry, archive: Path) -> None:
    image = pulled(crio, registry, built(registry, archive, "layered"))
    drop_in = crio.machine.path("/etc/crio/crio.conf.d/99-nri-restore.conf")
    configured = drop_in.read_text()
    drop_in.write_text(re.sub(r"allowed_annotations = .*\n", "", configured))
    try:
        with pytest.raises(CrioError, match=r"AnsweredTooLate: .*allowed_annotations of the handler must have"):
            crio.create(crio.run_pod_sandbox("dropped"), image)
    finally:
        drop_in.write_text(configured)


def test_nothing_starts_while_the_daemon_is_away_and_what_runs_is_still_known_afterwards(
    crio: Crio, registry: Registry, archive: Path
) -> None:
    image = pulled(crio, registry, built(registry, archive, "layered"))
    container = crio.create(crio.run_pod_sandbox("stays"), image)
    crio.start(container)
    crio.stop_daemon()
    with pytest.raises(CrioError, match="NotPrepared: the nri-restore daemon was not asked"):
        crio.create(crio.run_pod_sandbox("refused"), image)
    crio.start_daemon()
    seen = len(crio.log(container))
    wait_for(lambda: len(crio.log(container)) > seen, "new numbers")
    plan = crio.machine.path(f"/run/nri-restore/{container.id}")
    assert (plan / "restored").exists()
    crio.stop(container)
    crio.remove(container)
    wait_for(lambda: not plan.exists(), "the plan to go")


def test_doctor_finds_crio_and_its_store(crio: Crio) -> None:
    crio.machine.spawn(["bash", "-c", "exec -a /usr/local/bin/crio sleep 100"], "/var/log/crio.log")
    wait_for(lambda: "\n/usr/local/bin/crio" in crio.machine.sh("ps -eo args"), "a process called crio")
    found = {each["check"]: each for each in json.loads(crio.nri_restore("node", "doctor", "-o", "json", check=False))}
    assert [found[name]["level"] for name in ("runtime", "handler", "nri")] == ["ok"] * 3, found
    assert found["runtime"]["text"] == "cri-o"
