"""Checkpoints that Podman itself took: read, checked, built into images, and resumed as pods of a containerd node."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.contract import HANDLER
from shared.run import run
from tests.e2e.conftest import WORKLOAD
from tests.e2e.node.counter import CREATED, DELETED, count, counts_without_gap, printed
from tests.e2e.node.kubelet import Container, Kubelet
from tests.e2e.node.machine import Machine
from tests.e2e.node.network import Network
from tests.e2e.node.node import PYTHON_PATH, Node
from tests.e2e.node.places import CHECKOUT
from tests.e2e.node.registry import Registry
from tests.e2e.pod_manifests import planned
from tests.e2e.podman import Podman
from tests.e2e.restoring import have, local, with_daemon

COMPRESSIONS = {"zstd": (), "gzip": ("--compress=gzip",), "none": ("--compress=none",)}
"""And how Podman is told."""
FROM_OUTSIDE = {"/dev/shm", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv"}
RESTORE = "from kubectl_restore.cli import main; main()"


@pytest.fixture(scope="session")
def podman(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    with Machine("containerd-1.7", network, "podman") as machine:
        yield Podman(machine, tmp_path_factory.mktemp("podman"))


@pytest.fixture(scope="session")
def archives(podman: Podman, registry: Registry, busybox: str) -> dict[str, Path]:
    """Of one container by their compression; "none" was taken last and ended it, the others let it go on."""
    podman.run("counting", f"{registry.address}/busybox:1", "sh", "-c", WORKLOAD)
    return {
        name: podman.checkpoint("counting", f"{name}.tar", *options, *(["--leave-running"] if name != "none" else []))
        for name, options in COMPRESSIONS.items()
    }


def restore(*words: str | Path) -> str:
    """What ``kubectl restore`` prints here."""
    command = [sys.executable, "-c", RESTORE, *words]
    return run(command, timeout_s=300, env={"PYTHONPATH": str(CHECKOUT), "HOME": "/root"}).stdout


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_archive_is_inspected(archives: dict[str, Path], compression: str, node_17: Node, busybox: str) -> None:
    found = json.loads(restore("inspect", archives[compression], "-o", "json"))
    image = node_17.cri.image_status(busybox)
    assert image is not None
    assert found["archive"]["compression"] == compression
    assert (found["engine"]["name"], found["container"]["name"]) == ("Podman", "counting")
    assert found["container"]["image"]["digest"] == image.id
    assert found["container"]["checkpointedAt"] > found["container"]["createdAt"]
    assert found["processes"][0]["command"] == ["sh", "-c", WORKLOAD]
    assert found["rootChanges"]["deletedPaths"] == 1
    assert from_outside(found) == FROM_OUTSIDE


def from_outside(found: dict[str, Any]) -> set[str]:
    return {mount["path"] for mount in found["mounts"] if mount["external"]}


def test_archive_of_crun_is_inspected_and_resumes_under_runc(
    node_17: Node, kubelet_of: Callable[[Node], Kubelet], podman: Podman, registry: Registry, busybox: str
) -> None:
    """crun hands each masked file to CRIU under its own path, runc all under one."""
    by_crun = replace(podman, runtime="crun")
    by_crun.run("crun", f"{registry.address}/busybox:1", "sh", "-c", WORKLOAD)
    archive = by_crun.checkpoint("crun", "crun.tar")
    assert from_outside(json.loads(restore("inspect", archive, "-o", "json"))) == FROM_OUTSIDE
    container = resumed(node_17, kubelet_of(node_17), registry, built(registry, archive, "layered"))
    seen = count(container)
    container.wait_for(lambda each: len(printed(each)) > seen, "new numbers")
    assert counts_without_gap(container)
    assert container.exec("cat", "/proc/timer_list", "/proc/kcore").stdout == "", "still masked"


def checked(podman: Podman, registry: Registry, archive: str) -> tuple[int, dict[str, list[str]]]:
    """Exit status of ``kubectl restore check`` where CRIU is, and the sentences by code."""
    base = f"{registry.address}/busybox:1"
    words = ["check", f"/tmp/{archive}", "--here", "--base", base, "--plain-http", "-o", "json"]
    done = podman.machine.run(["python3", "-c", RESTORE, *words], check=False, env={"PYTHONPATH": PYTHON_PATH})
    findings: dict[str, list[str]] = {}
    for finding in json.loads(done.stdout)["findings"]:
        findings.setdefault(finding["code"], []).append(finding["sentence"])
    return done.returncode, findings


def test_archive_is_found_good(podman: Podman, registry: Registry, archives: dict[str, Path]) -> None:
    status, findings = checked(podman, registry, archives["none"].name)
    assert "FilesMatch" in findings, findings
    assert status == 0, findings


def test_file_that_changed_before_podman_packed_it_is_found(podman: Podman, registry: Registry, busybox: str) -> None:
    """With --leave-running the container goes on before its changed files are packed."""
    script = "exec 3>/root/held; i=0; while :; do i=$((i+1)); echo $i >&3; [ $i -gt 9 ] || echo $i; done"
    podman.run("hasty", f"{registry.address}/busybox:1", "sh", "-c", script)
    archive = podman.checkpoint("hasty", "hasty.tar", "--leave-running")
    podman("rm", "--force", "--time", "0", "hasty")
    status, findings = checked(podman, registry, archive.name)
    assert status == 1
    (sentence,) = findings["FileSizeDiffers"]
    assert sentence.startswith("/root/held had ")


def as_archive(podman: Podman, registry: Registry, archives: dict[str, Path]) -> str:
    return built(registry, archives["none"], "archive")


def as_layers(podman: Podman, registry: Registry, archives: dict[str, Path]) -> str:
    return built(registry, archives["none"], "layered")


def by_podman(podman: Podman, registry: Registry, archives: dict[str, Path]) -> str:
    """``--create-image``."""
    podman.run("imaged", f"{registry.address}/busybox:1", "sh", "-c", WORKLOAD)
    podman.checkpoint_image("imaged", f"{registry.address}/podman/own:1")
    return "podman/own:1"


def built(registry: Registry, archive: Path, image_format: str) -> str:
    name = f"podman/{archive.stem}:{image_format}"
    base = f"{registry.address}/busybox:1"
    words = ["-t", f"{registry.address}/{name}", "--format", image_format, "--base", base, "--push", "--plain-http"]
    restore("build", archive, *words)
    return name


def resumed(node: Node, kubelet: Kubelet, registry: Registry, name: str) -> Container:
    """A checkpoint image in the pod that `kubectl restore manifest` writes for it; raises CriError."""
    with_daemon(node)
    have(node, local("busybox:1"), local(name))
    pod = json.loads(restore("manifest", f"{registry.address}/{name}", "--plain-http", "-o", "json"))
    pod["metadata"] |= {"namespace": "default", "uid": str(uuid.uuid4())}
    plan = planned(pod, HANDLER, lambda kind, name: {})
    (spec,) = plan.containers
    return kubelet.run_pod(plan.pod).run(replace(spec, image=local(name)))


@pytest.mark.parametrize("image", [as_archive, as_layers, by_podman])
def test_container_of_podman_resumes_in_the_pod_that_manifest_writes(
    node_17: Node,
    kubelet_of: Callable[[Node], Kubelet],
    podman: Podman,
    registry: Registry,
    archives: dict[str, Path],
    image: Callable[[Podman, Registry, dict[str, Path]], str],
) -> None:
    container = resumed(node_17, kubelet_of(node_17), registry, image(podman, registry, archives))
    assert node_17.path(f"/run/nri-restore/{container.id}/restored").exists()
    seen = count(container)
    container.wait_for(lambda each: len(printed(each)) > seen, "new numbers")
    assert counts_without_gap(container)
    held = [int(line) for line in container.sh("cat /root/held").split()]
    assert held == list(range(1, len(held) + 1))
    assert container.sh(f"cat {CREATED} /etc/changed") == "made\nchanged\n"
    assert container.exec("test", "-e", DELETED).exit_code == 1
