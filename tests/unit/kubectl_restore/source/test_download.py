from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_restore.image.progress import Silent
from kubectl_restore.kube.connection import Connection
from kubectl_restore.kube.transfer_pod import TransferPod, transfer_pod
from kubectl_restore.source import download as downloading
from kubectl_restore.source.download import download
from shared.errors import RestoreError, Unavailable
from tests.support.kube_api import KubeApi
from tests.support.kube_memory import CHECKPOINTS, MemoryNodes

CONTENT = os.urandom(1_000_000)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "_PAUSE_S", 0.01)


@pytest.fixture
def pod(api: KubeApi, nodes: MemoryNodes, connection: Connection) -> Iterator[TransferPod]:
    """With ``web.tar`` in the directory it sees."""
    nodes.path(f"{CHECKPOINTS}/web.tar").write_bytes(CONTENT)
    with transfer_pod(connection, "node-1", CHECKPOINTS) as pod:
        yield pod


class Counting(Silent):
    seen = 0

    def track(self, label: str, size: int, pieces: Iterator[bytes], offset: int = 0) -> Iterator[bytes]:
        self.label, self.size = label, size
        for piece in pieces:
            self.seen += len(piece)
            yield piece


def fetch(pod: TransferPod, folder: Path) -> Path:
    download(pod, "web.tar", folder / "here.tar", Silent())
    return folder / "here.tar"


def test_file_arrives_whole_and_private(pod: TransferPod, tmp_path: Path) -> None:
    progress = Counting()
    assert download(pod, "web.tar", tmp_path / "here.tar", progress) == len(CONTENT)
    assert (tmp_path / "here.tar").read_bytes() == CONTENT
    assert (tmp_path / "here.tar").stat().st_mode & 0o777 == 0o600
    assert (progress.label, progress.size, progress.seen) == ("web.tar", len(CONTENT), len(CONTENT))


def test_empty_file_arrives(pod: TransferPod, nodes: MemoryNodes, tmp_path: Path) -> None:
    nodes.path(f"{CHECKPOINTS}/web.tar").write_bytes(b"")
    assert fetch(pod, tmp_path).read_bytes() == b""


def test_broken_stream_goes_on_where_it_broke(pod: TransferPod, nodes: MemoryNodes, tmp_path: Path) -> None:
    nodes.drop_after = [300_000, 0, 100_001]
    assert fetch(pod, tmp_path).read_bytes() == CONTENT
    offsets = [command[2] for command in nodes.execs if command[0] == "tail"]
    assert offsets[0] == "+1"
    assert offsets[1:] == ["+300001", "+300001", "+400002"]


def test_output_that_lost_its_end_is_asked_for_again(pod: TransferPod, nodes: MemoryNodes, tmp_path: Path) -> None:
    nodes.cut_after = [999_999, 0]
    assert fetch(pod, tmp_path).read_bytes() == CONTENT


def test_short_answers_that_got_lost_are_asked_for_again(pod: TransferPod, nodes: MemoryNodes, tmp_path: Path) -> None:
    nodes.spoilt, nodes.cut_after = ("stat", "sha256sum"), [0, 0, 0]
    assert fetch(pod, tmp_path).read_bytes() == CONTENT
    assert nodes.cut_after == []


def test_stream_that_never_gets_further_is_given_up(pod: TransferPod, nodes: MemoryNodes, tmp_path: Path) -> None:
    nodes.drop_after = [1000] + [0] * 20
    with pytest.raises(Unavailable, match="broke 8 times in a row at 1000 of 1000000 bytes"):
        fetch(pod, tmp_path)


def test_damage_on_the_way_is_found(pod: TransferPod, nodes: MemoryNodes, tmp_path: Path) -> None:
    nodes.damage = 500_000
    with pytest.raises(RestoreError, match="arrived damaged") as error:
        fetch(pod, tmp_path)
    assert error.value.reason == "TransferCorrupt"


def test_missing_file_is_told_as_such(pod: TransferPod, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match=r"there is no file other\.tar on the node") as error:
        download(pod, "other.tar", tmp_path / "here.tar", Silent())
    assert error.value.reason == "NodeFileMissing"


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite"])
def test_file_that_changes_meanwhile_is_refused(
    pod: TransferPod, nodes: MemoryNodes, tmp_path: Path, change: str
) -> None:
    file = nodes.path(f"{CHECKPOINTS}/web.tar")

    def once(sent: int) -> None:
        nodes.on_output = lambda sent: None
        if change == "grow":
            file.write_bytes(CONTENT * 2)
        elif change == "shrink":
            os.truncate(file, len(CONTENT) // 2)
        else:
            other = file.with_name("other")
            other.write_bytes(CONTENT)
            other.replace(file)

    def when_streaming(sent: int) -> None:
        if sent > 10_000:
            once(sent)

    nodes.on_output = when_streaming
    with pytest.raises(RestoreError) as error:
        fetch(pod, tmp_path)
    assert error.value.reason == "NodeFileChanged"


def test_image_without_the_tools_is_told_as_such(
    pod: TransferPod, api: KubeApi, nodes: MemoryNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = 'error executing command in container: exec: "stat": executable file not found in $PATH'
    with pytest.raises(RestoreError, match="it needs sleep, stat, tail and sha256sum") as error:
        monkeypatch.setattr(
            downloading, "output", lambda *_, **__: (_ for _ in ()).throw(RestoreError("ExecFailed", message))
        )
        fetch(pod, tmp_path)
    assert error.value.reason == "TransferImageUnfit"


def test_pod_that_vanishes_ends_it(pod: TransferPod, api: KubeApi, nodes: MemoryNodes, tmp_path: Path) -> None:
    nodes.on_output = lambda sent: api.forget_pod("default", pod.name)
    nodes.drop_after = [200_000, 200_000]
    with pytest.raises(RestoreError, match="not found"):
        fetch(pod, tmp_path)


def test_nonsense_of_the_image_is_told_as_such(
    pod: TransferPod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "output", lambda *_, **__: "usage: stat FILE")
    with pytest.raises(RestoreError, match="the transfer image's stat says 'usage: stat FILE'"):
        fetch(pod, tmp_path)


def test_existing_file_is_not_overwritten(pod: TransferPod, tmp_path: Path) -> None:
    (tmp_path / "here.tar").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        fetch(pod, tmp_path)
    assert (tmp_path / "here.tar").read_bytes() == b"mine"


def test_server_that_refuses_the_second_stream(
    pod: TransferPod, api: KubeApi, nodes: MemoryNodes, tmp_path: Path
) -> None:
    nodes.drop_after = [100_000]
    nodes.on_output = lambda sent: api.forbid("create", "pods/exec")
    with pytest.raises(RestoreError, match="may not create pods/exec"):
        fetch(pod, tmp_path)


def test_memory_stays_small_however_big_the_file(
    api: KubeApi, nodes: MemoryNodes, kubeconfig: Path, tmp_path: Path
) -> None:
    size = 256 << 20
    with nodes.path(f"{CHECKPOINTS}/big.tar").open("wb") as file:
        file.truncate(size)
    done = subprocess.run(
        [sys.executable, "-c", _FETCH, kubeconfig, tmp_path / "big.tar"], capture_output=True, text=True, check=True
    )
    fetched, peak_kib = map(int, done.stdout.split())
    assert fetched == size
    assert peak_kib < 150 << 10


_FETCH = f"""
import re, sys
from pathlib import Path
from kubectl_restore.image.progress import Silent
from kubectl_restore.kube.connection import connect
from kubectl_restore.kube.flags import ClusterFlags
from kubectl_restore.source.names import NodeFile
from kubectl_restore.source.opening import Fetching, fetch

connection = connect(ClusterFlags(kubeconfig=Path(sys.argv[1])))
fetching = Fetching(lambda: connection, Silent())
size = fetch(connection, NodeFile("node-1", "{CHECKPOINTS}/big.tar"), Path(sys.argv[2]), fetching)
# Not ru_maxrss: it starts with what the test process had when it forked.
print(size, re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""
