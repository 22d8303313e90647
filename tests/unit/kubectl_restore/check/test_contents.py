from __future__ import annotations

import pytest

from shared.criu import criu_pb2 as pb
from tests.support.checkpoints import SyntheticDump, containerd, runtime_spec
from tests.support.inspected import internet, tcp
from tests.unit.kubectl_restore.check.conftest import Examine, codes, one


def bind(path: str, *options: str) -> dict[str, object]:
    return {"destination": path, "type": "bind", "source": "/node", "options": ["rbind", *options]}


def test_plain_process_asks_for_nothing(examined: Examine) -> None:
    assert not codes(examined(SyntheticDump.of_processes())) & {
        "TcpConnections",
        "BoundToPodIp",
        "FileLocks",
        "TerminalNeeded",
        "MountsNeeded",
        "LsmProfile",
        "CriuPluginNeeded",
    }


def test_connections_are_closed(examined: Examine) -> None:
    dump = SyntheticDump.of_processes()
    for number in (50, 51):
        dump.add_file(tcp(number, 1, ("10.0.0.5", 9), ("10.0.0.6", 9)), descriptor=number)
    report = examined(dump)
    assert one(report, "TcpConnections").sentence.startswith("2 TCP connections are closed")
    assert "BoundToPodIp" not in codes(report)


@pytest.mark.parametrize(
    ("socket", "found"),
    [
        (tcp(50, 10, ("10.0.0.5", 80)), True),
        (tcp(50, 10, ("0.0.0.0", 80)), False),
        (tcp(50, 10, ("127.0.0.1", 80)), False),
        (internet(50, 17, 2, 7, ("10.0.0.5", 53), ("0.0.0.0", 0)), True),
        (internet(50, 17, 2, 7, ("10.0.0.5", 0), ("0.0.0.0", 0)), False),
        (internet(50, 17, 2, 1, ("10.0.0.5", 53), ("10.0.0.6", 9)), False),
    ],
)
def test_sockets_of_the_old_pods_address(examined: Examine, socket: pb.FileEntry, found: bool) -> None:
    dump = SyntheticDump.of_processes()
    dump.add_file(socket, descriptor=9)
    report = examined(dump)
    assert ("BoundToPodIp" in codes(report)) is found
    if found:
        assert report.verdict == "would fail"
        assert "10.0.0.5" in one(report, "BoundToPodIp").sentence


def test_locks(examined: Examine) -> None:
    dump = SyntheticDump.of_processes()
    dump.images["filelocks.img"] = [pb.FileLockEntry(flag=2, pid=1)]
    assert "nri-restore/criu: file-locks" in one(examined(dump), "FileLocks").sentence


def test_terminal(examined: Examine) -> None:
    spec = runtime_spec()
    spec["process"]["terminal"] = True
    assert "tty: true" in one(examined(containerd(spec=spec)), "TerminalNeeded").sentence


def test_mounts_that_not_every_pod_has(examined: Examine) -> None:
    spec = runtime_spec(mounts=[bind("/data"), bind("/etc/hosts"), bind("/dev/shm"), bind("/cache", "ro")])
    assert "/cache, /data" in one(examined(containerd(spec=spec)), "MountsNeeded").sentence


def test_security_profile(examined: Examine) -> None:
    dump = SyntheticDump.of_processes()
    dump.core(1).thread_core.creds.lsm_profile = b"cri-containerd.apparmor.d"
    assert "cri-containerd.apparmor.d" in one(examined(dump), "LsmProfile").sentence
    dump.core(1).thread_core.creds.lsm_profile = b"unconfined"
    assert "LsmProfile" not in codes(examined(dump))


def test_plugins(examined: Examine) -> None:
    dump = SyntheticDump.of_processes()
    dump.inventory().plugins_entry.plugins.append(b"cuda_plugin.so")
    report = examined(dump)
    assert "cuda_plugin.so" in one(report, "CriuPluginNeeded").sentence
    assert report.verdict == "could not tell"


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("config.dump", b"{", "MetadataMalformed"),
        ("spec.dump", b"[]", "MetadataMalformed"),
        ("checkpoint/pages-1.img", b"", "PagesSizeMismatch"),
        ("checkpoint/pages-1.img", bytes(4096), "PagesSizeMismatch"),
        ("checkpoint/pstree.img", b"nonsense", "WrongMagic"),
        ("checkpoint/cpuinfo.img", b"nonsense", "WrongMagic"),
        ("checkpoint/remap-fpath.img", b"nonsense", "WrongMagic"),
    ],
)
def test_damage_is_a_finding(examined: Examine, name: str, content: bytes, word: str) -> None:
    report = examined(containerd() | {name: content})
    assert codes(report) == {"CheckpointDamaged"}
    assert one(report, "CheckpointDamaged").sentence.startswith(f"{word}: ")
    assert report.exit_code == 1


@pytest.mark.parametrize("name", ["config.dump", "checkpoint/pstree.img", "checkpoint/core-1.img", "status.dump"])
def test_missing_file_is_a_finding(examined: Examine, name: str) -> None:
    files = containerd()
    del files[name]
    assert codes(examined(files)) == {"CheckpointDamaged"}
