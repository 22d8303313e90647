from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kubectl_restore.image.layers import Layer, archive_layer, checkpoint_layer, rootfs_layer
from shared import oci
from shared.archive import open_checkpoint
from shared.compression import Compression
from shared.errors import CheckpointInvalid
from shared.metadata import read_checkpoint
from tests.support.checkpoints import containerd, crio, podman, rootfs_diff, tar_of, write_directory
from tests.unit.kubectl_restore.conftest import WriteCheckpoint

WHEN = datetime(2026, 1, 2, tzinfo=UTC)


def _bytes(layer: Layer | None) -> bytes:
    assert layer
    content = b"".join(layer.source.pieces())
    assert len(content) == layer.source.size
    return content


def _members(content: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return archive.getmembers()


def _read(content: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        member = archive.extractfile(name)
        assert member
        return member.read()


def _rootfs(path: Path) -> Layer | None:
    with open_checkpoint(path) as files:
        layer = rootfs_layer(files, read_checkpoint(files), WHEN)
        if layer:
            _bytes(layer)
        return layer


def _rootfs_bytes(path: Path) -> bytes:
    with open_checkpoint(path) as files:
        return _bytes(rootfs_layer(files, read_checkpoint(files), WHEN))


@pytest.mark.parametrize(
    ("compression", "media_type"),
    [(Compression.NONE, oci.LAYER), (Compression.GZIP, oci.LAYER_GZIP), (Compression.ZSTD, oci.LAYER_ZSTD)],
)
def test_the_archive_is_the_layer_byte_for_byte(
    compression: Compression, media_type: str, write_checkpoint: WriteCheckpoint
) -> None:
    path = write_checkpoint(compression=compression)
    with open_checkpoint(path) as files:
        layer = archive_layer(files, WHEN)
        assert layer.media_type == media_type
        assert _bytes(layer) == path.read_bytes()


def test_an_unpacked_checkpoint_becomes_a_tar_of_its_files(tmp_path: Path) -> None:
    path = write_directory(tmp_path / "unpacked", containerd())
    with open_checkpoint(path) as files:
        content = _bytes(archive_layer(files, WHEN))
    assert {member.name for member in _members(content) if member.isreg()} == set(containerd())
    assert _read(content, "config.dump") == containerd()["config.dump"]


def test_containerds_diff_is_a_layer_as_it_is(write_checkpoint: WriteCheckpoint) -> None:
    path = write_checkpoint()
    layer = _rootfs(path)
    assert layer
    assert layer.media_type == oci.LAYER_GZIP
    assert _rootfs_bytes(path) == containerd()["rootfs-diff.tar"]


@pytest.mark.parametrize("engine", [crio, podman])
def test_deleted_files_become_whiteouts_before_the_diff(
    engine: Callable[[], dict[str, bytes]], write_checkpoint: WriteCheckpoint
) -> None:
    path = write_checkpoint(engine())
    content = _rootfs_bytes(path)
    names = [member.name for member in _members(content)]
    assert names[0] == "etc/.wh.motd"
    assert "root/count" in names[1:]
    assert content.endswith(rootfs_diff())
    assert _members(content)[0].size == 0


def test_a_whiteout_hides_those_below_it_and_none_comes_twice(write_checkpoint: WriteCheckpoint) -> None:
    deleted = ["/var/lib/x/1", "/var/lib/x", "/etc/motd", "/etc/motd", "/var/lib/x/2/3", "/a"]
    content = _rootfs_bytes(write_checkpoint(crio() | {"deleted.files": json.dumps(deleted).encode()}))
    whiteouts = [member.name for member in _members(content) if ".wh." in member.name]
    assert whiteouts == [".wh.a", "etc/.wh.motd", "var/lib/.wh.x"]


def test_deletions_without_a_diff_are_a_layer_of_their_own(write_checkpoint: WriteCheckpoint) -> None:
    files = crio()
    del files["rootfs-diff.tar"]
    content = _rootfs_bytes(write_checkpoint(files))
    assert [member.name for member in _members(content)] == ["etc/.wh.motd"]
    assert len(content) % 512 == 0


def test_an_unchanged_root_is_no_layer(write_checkpoint: WriteCheckpoint) -> None:
    files = crio()
    del files["rootfs-diff.tar"], files["deleted.files"]
    assert _rootfs(write_checkpoint(files)) is None


@pytest.mark.parametrize("path", ["/etc/.wh.motd", "/.wh..wh..opq", "/a/.wh.b/c"])
def test_names_that_a_layer_reads_as_whiteouts_are_refused(path: str, write_checkpoint: WriteCheckpoint) -> None:
    with pytest.raises(CheckpointInvalid, match="no image layer can express") as refusal:
        _rootfs(write_checkpoint(crio() | {"deleted.files": json.dumps([path]).encode()}))
    assert refusal.value.reason == "DeletedFilesInvalid"


def test_deletions_beside_a_compressed_diff_are_refused(write_checkpoint: WriteCheckpoint) -> None:
    files = crio() | {"rootfs-diff.tar": gzip.compress(rootfs_diff())}
    with pytest.raises(CheckpointInvalid, match="beside a compressed"):
        _rootfs(write_checkpoint(files))


@pytest.mark.parametrize("engine", [containerd, crio, podman])
@pytest.mark.parametrize("compression", list(Compression))
def test_the_checkpoint_layer_has_images_and_metadata_for_root_only(
    engine: Callable[[], dict[str, bytes]], compression: Compression, write_checkpoint: WriteCheckpoint
) -> None:
    files = engine()
    path = write_checkpoint(files, compression)
    with open_checkpoint(path) as opened:
        checkpoint = read_checkpoint(opened)
        content = _bytes(checkpoint_layer(opened, checkpoint, WHEN))
    members = {member.name: member for member in _members(content)}
    assert {"config.dump", "spec.dump", checkpoint.log_member} <= {
        name.removeprefix(".nri-restore/") for name in members
    }
    for name in files:
        if name.startswith("checkpoint/"):
            assert _read(content, f".nri-restore/{name}") == files[name]
    for member in members.values():
        assert (member.uid, member.gid, member.mtime) == (0, 0, int(WHEN.timestamp()))
        assert member.mode == (0o700 if member.isdir() else 0o600)
        assert member.name == ".nri-restore" or member.name.startswith(".nri-restore/")
    assert next(iter(members)) == ".nri-restore"
    assert not {name for name in members if name.endswith(("rootfs-diff.tar", "deleted.files", "artifacts", "/status"))}


def test_every_folder_of_the_checkpoint_layer_comes_before_its_files(write_checkpoint: WriteCheckpoint) -> None:
    with open_checkpoint(write_checkpoint()) as files:
        names = [member.name for member in _members(_bytes(checkpoint_layer(files, read_checkpoint(files), WHEN)))]
    assert (
        names.index(".nri-restore")
        < names.index(".nri-restore/checkpoint")
        < names.index(".nri-restore/checkpoint/inventory.img")
    )


def test_a_layer_from_the_middle_of_a_file_is_what_follows_there(write_checkpoint: WriteCheckpoint) -> None:
    with open_checkpoint(write_checkpoint()) as files:
        layer = checkpoint_layer(files, read_checkpoint(files), WHEN)
        whole = b"".join(layer.source.pieces())
        for offset in range(0, len(whole), 997):
            assert b"".join(layer.source.pieces(offset)) == whole[offset:]


def test_a_file_above_8_gib_fits_a_header() -> None:
    from kubectl_restore.image.layers import _header

    member = tarfile.TarInfo.frombuf(_header("x", WHEN, size=1).content, "utf-8", "strict")
    assert member.size == 1
    assert b"size=9000000000" in _header("x", WHEN, size=9_000_000_000).content


def test_tar_of_the_support_module_is_what_the_reader_takes(write_checkpoint: WriteCheckpoint) -> None:
    """Guards the tests above: their archives must be sound, or refusals would prove nothing."""
    with open_checkpoint(write_checkpoint(crio())) as files:
        assert read_checkpoint(files).engine == "CRI-O"
    assert tar_of({}) == bytes(1024)
