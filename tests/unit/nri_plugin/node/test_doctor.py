"""Each check of the doctor, in health and in sickness."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nri_plugin.config import Cluster, Config, Nri, Paths
from nri_plugin.metrics import Metrics
from nri_plugin.node import doctor
from nri_plugin.node.containerd import Containerd
from nri_plugin.node.crio import Crio
from nri_plugin.scrape import served
from tests.support.kube_api import KubeApi
from tests.support.kube_memory import MemoryNodes


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts programs on a PATH of their own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def put(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        nri=Nri(socket=tmp_path / "nri.sock"), paths=Paths(tmp_path / "run", tmp_path / "state", tmp_path / "log")
    )


@pytest.mark.parametrize(
    ("script", "level"), [("echo Version: 4.2.1", "ok"), ("echo Version: 3.15", "fail"), ("exit 1", "fail")]
)
def test_criu(program: Callable[[str, str], None], script: str, level: str) -> None:
    program("criu", script)
    assert doctor.criu().level == level


TUN = "echo 'Error (criu/tun.c:85): tun: Unable to create tun' >&2; "
UFFD = "echo 'Error (criu/uffd.c:1): no userfaultfd' >&2; "


@pytest.mark.parametrize(
    ("script", "level"),
    [
        ("exit 0", "ok"),
        (f"{UFFD}exit 1", "fail"),
        (f"{TUN}exit 1", "warn"),
        (f"{TUN}{UFFD}exit 1", "fail"),
        ("exit 1", "fail"),
    ],
)
def test_kernel(program: Callable[[str, str], None], script: str, level: str) -> None:
    program("criu", script)
    found = doctor.kernel()
    assert found.level == level
    assert ("no userfaultfd" in found.text) == ("uffd" in script)


@pytest.mark.parametrize(
    ("says", "level"),
    [
        ("runc version 1.1.15", "ok"),
        ("runc version 1.0.3", "fail"),
        ("crun version 1.21 +SYSTEMD +CRIU", "ok"),
        ("crun version 1.21 +SYSTEMD", "fail"),
        ("youki version 0.5", "fail"),
    ],
)
def test_oci_runtime_is_the_one_the_wrapper_runs(
    program: Callable[[str, str], None], tmp_path: Path, says: str, level: str
) -> None:
    program("mine", f"echo {says}")
    (tmp_path / "conf").write_text("wait_s=3\nruntime=mine\n")
    assert doctor.oci_runtime(tmp_path / "conf").level == level
    (tmp_path / "conf").write_text("runtime=/nowhere/runc\n")
    assert doctor.oci_runtime(tmp_path / "conf").level == "fail"


def test_cgroup(tmp_path: Path) -> None:
    assert doctor.cgroup(tmp_path).level == "fail"
    (tmp_path / "memory").mkdir()
    assert doctor.cgroup(tmp_path).text == "v1"
    (tmp_path / "cgroup.controllers").touch()
    assert doctor.cgroup(tmp_path).text == "v2"


def test_lsm(tmp_path: Path) -> None:
    listed, enforce = tmp_path / "lsm", tmp_path / "enforce"
    assert doctor.lsm(listed, enforce).level == "ok"
    listed.write_text("capability,apparmor")
    assert doctor.lsm(listed, enforce).level == "warn"
    listed.write_text("capability")
    enforce.write_text("1")
    assert "SELinux" in doctor.lsm(listed, enforce).text


def test_nri(config: Config) -> None:
    assert doctor.nri(config.nri.socket).level == "fail"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(config.nri.socket))
        server.listen()
        assert doctor.nri(config.nri.socket).level == "ok"


def test_handler_of_containerd(tmp_path: Path) -> None:
    runtime = Containerd(tmp_path / "c.toml", (2, 1))
    table = '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nri-restore.options]\n'
    runtime.config.write_text("version = 3\n")
    assert doctor.handler(runtime, "nri-restore").level == "fail"
    runtime.config.write_text(f'version = 3\n{table}BinaryName = "/nowhere"\n')
    assert "no program" in doctor.handler(runtime, "nri-restore").text
    runtime.config.write_text(f'version = 3\n{table}BinaryName = "/bin/sh"\n')
    assert doctor.handler(runtime, "nri-restore").level == "ok"


def test_handler_of_crio(tmp_path: Path) -> None:
    runtime = Crio(tmp_path / "crio.conf", tmp_path / "d")
    assert doctor.handler(runtime, "nri-restore").level == "fail"
    runtime.folder.mkdir()
    written = '[crio.runtime.runtimes.nri-restore]\nruntime_path = "/bin/sh"\n'
    (runtime.folder / "99.conf").write_text(written)
    assert "does not let org.criu.config through" in doctor.handler(runtime, "nri-restore").text
    assert doctor.handler(replace(runtime, version=(1, 29)), "nri-restore").level == "ok"
    (runtime.folder / "99.conf").write_text(f'{written}allowed_annotations = ["org.criu.config"]\n')
    assert doctor.handler(runtime, "nri-restore").level == "ok"


def test_runtime_is_the_one_that_the_daemon_expects(config: Config, tmp_path: Path) -> None:
    assert doctor.store(Containerd(), config).level == "ok"
    found = doctor.store(Crio(), config)
    assert (found.level, found.text) == ("fail", "cri-o runs here, the daemon expects containerd")
    expected = replace(config.runtime, name="cri-o", storage=tmp_path, storage_run=tmp_path)
    assert "has no" in doctor.store(Crio(), replace(config, runtime=expected)).text
    (tmp_path / "overlay-images").mkdir()
    (tmp_path / "overlay-containers").mkdir()
    assert doctor.store(Crio(), replace(config, runtime=expected)).level == "ok"


def test_daemon(config: Config) -> None:
    assert doctor.daemon(config).text == "it was never started"
    config.paths.plans.mkdir()
    descriptor = os.open(config.paths.plans / "daemon.lock", os.O_RDWR | os.O_CREAT)
    assert doctor.daemon(config).text == "it does not run"
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert "does not tell" in doctor.daemon(config, patience_s=0).text, "nothing answers"
    connected = False

    async def examined() -> doctor.Finding:
        def render() -> str:
            return Metrics("0.1.0").render({}, connected=connected)

        async with served(config.paths.plans, 0, render):
            return await asyncio.to_thread(doctor.daemon, config, patience_s=0.5)

    assert "does not tell" in asyncio.run(examined()).text
    connected = True
    assert asyncio.run(examined()).level == "ok"
    os.close(descriptor)


def test_daemon_that_reconnects_is_waited_for(config: Config) -> None:
    config.paths.plans.mkdir()
    descriptor = os.open(config.paths.plans / "daemon.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    answers = iter([False, False, True])

    async def examined() -> doctor.Finding:
        async with served(config.paths.plans, 0, lambda: Metrics("0.1.0").render({}, connected=next(answers))):
            return await asyncio.to_thread(doctor.daemon, config)

    assert asyncio.run(examined()).level == "ok"
    os.close(descriptor)


def test_runtime_class(program: Callable[[str, str], None], tmp_path: Path) -> None:
    assert doctor.runtime_class("x", (str(tmp_path / "none"),)).level == "warn"
    (tmp_path / "kubeconfig").touch()
    program("kubectl", "echo runtimeclass/x")
    assert doctor.runtime_class("x", (str(tmp_path / "kubeconfig"),)).level == "ok"
    program("kubectl", "echo not found >&2; exit 1")
    assert doctor.runtime_class("x", (str(tmp_path / "kubeconfig"),)).text == "not found"


def test_cluster(config: Config, tmp_path: Path) -> None:
    assert doctor.cluster(config).level == "ok"
    away = doctor.cluster(replace(config, cluster=Cluster(kubeconfig=tmp_path / "none")))
    assert away.level == "warn" and "none cannot be read" in away.text
    with KubeApi(MemoryNodes(tmp_path / "nodes")) as api:
        there = Cluster(api.write_kubeconfig(tmp_path / "kubeconfig"), "node-1")
        assert doctor.cluster(replace(config, cluster=there)).text.endswith("this is the node node-1")
        wrong = doctor.cluster(replace(config, cluster=replace(there, node="node-7")))
        assert wrong.level == "warn" and "there is no node node-7" in wrong.text


def test_disk_and_permissions(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config.paths.plans.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert doctor.permissions(config).level == "ok"
    config.paths.plans.chmod(0o755)
    assert doctor.permissions(config).level == "fail"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "root" in doctor.permissions(config).text
    monkeypatch.setattr(doctor, "LOW_DISK_BYTES", 0)
    assert doctor.disk(config).level == "ok"
    monkeypatch.setattr(doctor, "LOW_DISK_BYTES", 1 << 62)
    assert doctor.disk(config).level == "warn"


def test_check_that_cannot_be_made_is_a_failure_and_the_worst_counts(
    config: Config, program: Callable[[str, str], None]
) -> None:
    program("criu", "echo Version: 4.2")
    found = list(doctor.examine(replace(config)))
    assert len(found) == 13
    assert doctor.worst(found) == 2
    assert doctor.worst([doctor.Finding("a", "ok", ""), doctor.Finding("b", "warn", "", "x")]) == 1
    assert all(each.fix for each in found if each.level != "ok")
