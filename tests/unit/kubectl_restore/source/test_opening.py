from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_restore.image.progress import Silent
from kubectl_restore.kube.connection import Connection
from kubectl_restore.source.names import LocalFile, NodeFile, PodContainer
from kubectl_restore.source.opening import Fetching, checkpoint, fetch, opened
from shared.errors import RestoreError
from tests.support.kube_api import KubeApi
from tests.support.kube_backend import Answer
from tests.support.kube_memory import CHECKPOINTS, MemoryNodes


@pytest.fixture
def fetching(connection: Connection, tmp_path: Path) -> Fetching:
    return Fetching(lambda: connection, Silent(), folder=tmp_path / "downloads")


def test_local_file_is_taken_as_it_is(tmp_path: Path) -> None:
    def never() -> Connection:
        raise AssertionError("a local file needs no cluster")

    with opened(LocalFile(tmp_path / "x.tar"), Fetching(never, Silent())) as file:
        assert file.path == tmp_path / "x.tar"
        assert file.taken is None


def test_file_of_a_node_is_here_inside_the_block_only(api: KubeApi, nodes: MemoryNodes, fetching: Fetching) -> None:
    nodes.path(f"{CHECKPOINTS}/web.tar").write_bytes(b"archive")
    with opened(NodeFile("node-1", f"{CHECKPOINTS}/web.tar"), fetching) as file:
        assert file.path.name == "web.tar"
        assert file.path.read_bytes() == b"archive"
        assert file.path.parent.stat().st_mode & 0o777 == 0o700
        assert (file.node, file.node_path) == ("node-1", f"{CHECKPOINTS}/web.tar")
    assert fetching.folder
    assert list(fetching.folder.iterdir()) == []
    assert nodes.path(f"{CHECKPOINTS}/web.tar").exists()
    assert api.pods() == []


def test_pod_is_checkpointed_and_its_archive_fetched(
    api: KubeApi, nodes: MemoryNodes, connection: Connection, tmp_path: Path
) -> None:
    api.add_pod("web", "a", "b")
    notes: list[str] = []
    fetching = Fetching(lambda: connection, Silent(), folder=tmp_path / "downloads", note=notes.append)
    with opened(PodContainer("web", "b"), fetching) as file:
        assert file.path.read_bytes() == b"checkpoint of web"
        assert file.taken
        assert file.taken.target.container == "b"
    assert notes == [f"checkpoint taken: node/node-1:{file.node_path}"]
    assert [each["metadata"]["name"] for each in api.pods()] == ["web"]
    assert api.leases() == []


def test_failing_transfer_leaves_nothing(api: KubeApi, nodes: MemoryNodes, fetching: Fetching) -> None:
    nodes.path(f"{CHECKPOINTS}/web.tar").write_bytes(b"archive" * 1000)
    nodes.damage = 3
    with pytest.raises(RestoreError, match="damaged"), opened(NodeFile("node-1", f"{CHECKPOINTS}/web.tar"), fetching):
        pass
    assert fetching.folder
    assert list(fetching.folder.iterdir()) == []
    assert api.pods() == []


def test_failing_checkpoint_frees_its_lock(api: KubeApi, nodes: MemoryNodes, fetching: Fetching) -> None:
    api.add_pod("web")
    nodes.answers.append(Answer(500, "checkpointing of default/web/main failed (criu said no)"))
    with pytest.raises(RestoreError, match="criu said no"), opened(PodContainer("web"), fetching):
        pass
    assert api.leases() == []


def test_log_of_criu_is_read_when_a_checkpoint_fails(api: KubeApi, nodes: MemoryNodes, fetching: Fetching) -> None:
    api.add_pod("web")
    said = "checkpointing of default/web/main failed (criu failed: type DUMP errno 0 path= /run/x/criu-dump.log)"
    nodes.answers += [Answer(500, said), Answer(500, said)]
    with pytest.raises(RestoreError, match=r"on node node-1 \(it cannot be read from here: .*/run/x"):
        checkpoint(fetching.connect(), "web", "main", fetching)
    nodes.path("/run/x").mkdir(parents=True)
    nodes.path("/run/x/criu-dump.log").write_text("(00.1) Error (criu/a.c:1): why not\n")
    with pytest.raises(RestoreError, match=r"criu-dump.log on node node-1: why not$"):
        checkpoint(fetching.connect(), "web", "main", fetching)
    assert api.pods()[1:] == [] and api.leases() == []


def test_download_goes_to_the_cache_by_default(
    nodes: MemoryNodes, connection: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nodes.path(f"{CHECKPOINTS}/web.tar").write_bytes(b"archive")
    for name, value, parent in (
        ("XDG_CACHE_HOME", "cache", tmp_path / "cache" / "kubectl-restore"),
        ("TMPDIR", "scratch", tmp_path / "scratch"),
    ):
        monkeypatch.setenv(name, str(tmp_path / value))
        with opened(NodeFile("node-1", f"{CHECKPOINTS}/web.tar"), Fetching(lambda: connection, Silent())) as file:
            assert file.path.parent.parent == parent


def test_folder_that_cannot_be_made_is_told_as_such(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fetching = Fetching(lambda: connection, Silent(), folder=tmp_path / "file" / "below")
    with pytest.raises(RestoreError, match="set TMPDIR"), opened(NodeFile("node-1", "/x/y"), fetching):
        pass


def test_saved_file_is_never_overwritten_nor_left_half(
    api: KubeApi, nodes: MemoryNodes, connection: Connection, fetching: Fetching, tmp_path: Path
) -> None:
    nodes.path(f"{CHECKPOINTS}/web.tar").write_bytes(b"archive")
    mine = tmp_path / "mine.tar"
    mine.write_bytes(b"precious")
    name = NodeFile("node-1", f"{CHECKPOINTS}/web.tar")
    with pytest.raises(RestoreError, match="exists already"):
        fetch(connection, name, mine, fetching)
    assert mine.read_bytes() == b"precious"
    nodes.damage = 2
    with pytest.raises(RestoreError, match="damaged"):
        fetch(connection, name, tmp_path / "new.tar", fetching)
    assert not (tmp_path / "new.tar").exists()
    with pytest.raises(RestoreError, match="cannot write"):
        fetch(connection, name, tmp_path / "nowhere" / "new.tar", fetching)
    assert api.pods() == []
