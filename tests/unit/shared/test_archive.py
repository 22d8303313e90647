from __future__ import annotations

import errno
import gc
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared import archive
from shared.archive import Compression, open_checkpoint
from shared.errors import CheckpointInvalid
from tests.support.checkpoints import (
    compress,
    containerd,
    crio,
    member,
    podman,
    tar_of,
    tar_of_members,
    write_directory,
)

Refused = Callable[..., Any]
FILES = {"config.dump": b"{}", "checkpoint/pages-1.img": bytes(range(256)) * 64, "checkpoint/empty.img": b""}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.fixture(params=[*Compression, "directory"], ids=lambda form: getattr(form, "value", form))
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """FILES in every form a checkpoint comes in."""
    if request.param == "directory":
        return write_directory(tmp_path / "unpacked", FILES)
    return write(tmp_path / "checkpoint.tar", tar_of(FILES, request.param))


def test_every_form_gives_the_same_files(stored: Path) -> None:
    with open_checkpoint(stored) as files:
        assert set(files.names()) == set(FILES)
        for name, content in FILES.items():
            assert name in files
            assert files.size(name) == len(content)
            assert files.read(name, 1 << 20) == content
            with files.open(name) as file:
                assert file.read() == content


def test_missing_file_is_named(stored: Path, refused: Refused) -> None:
    with open_checkpoint(stored) as files:
        assert "nothing" not in files
        for call in (files.size, files.open, lambda name: files.read(name, 10)):
            with refused("FileMissing", '"nothing"', str(stored)):
                call("nothing")


@pytest.mark.parametrize("name", ["checkpoint", "../config.dump", "/config.dump", "./config.dump", ""])
def test_only_normalised_names_of_files_are_known(stored: Path, name: str) -> None:
    with open_checkpoint(stored) as files, pytest.raises(CheckpointInvalid) as caught:
        files.open(name)
    assert caught.value.reason == "FileMissing"


def test_file_larger_than_the_reader_wants_is_refused(stored: Path, refused: Refused) -> None:
    with open_checkpoint(stored) as files:
        assert len(files.read("checkpoint/pages-1.img", 16384)) == 16384
        with refused("FileTooLarge", "pages-1.img", "16384", "16383"):
            files.read("checkpoint/pages-1.img", 16383)


def test_several_members_are_read_at_once_and_outlive_the_archive(stored: Path) -> None:
    with open_checkpoint(stored) as files:
        first = files.open("checkpoint/pages-1.img")
        second = files.open("checkpoint/pages-1.img")
    content = FILES["checkpoint/pages-1.img"]
    assert first.read(300) == content[:300]
    assert second.read(200) == content[:200]
    assert first.read() == content[300:]
    assert second.read() == content[200:]
    first.close()
    second.close()


def test_member_of_a_plain_archive_is_seekable(tmp_path: Path) -> None:
    path = write(tmp_path / "c.tar", tar_of(FILES))
    with open_checkpoint(path) as files, files.open("checkpoint/pages-1.img") as pages:
        pages.seek(-6, os.SEEK_END)
        assert pages.read() == FILES["checkpoint/pages-1.img"][-6:]
        pages.seek(255)
        assert pages.read(2) == b"\xff\x00"


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_large_member_of_a_compressed_archive_is_streamed(
    compression: Compression, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "KEPT_FILE_BYTES", 100)
    large = os.urandom(3 << 20)
    stored = write(tmp_path / "c.tar", tar_of({"a": b"small", "big": large, "z": b"after"}, compression))
    with open_checkpoint(stored) as files:
        assert files.compression is compression
        with files.open("big") as one, files.open("big") as other:
            assert one.read(1 << 20) == large[: 1 << 20]
            assert other.read() == large
            assert one.read() == large[1 << 20 :]
        assert files.read("z", 10) == b"after"


def test_what_a_compressed_archive_keeps_in_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "KEPT_BYTES", 250)
    contents = {f"f{number}": bytes([number]) * 100 for number in range(5)}
    with open_checkpoint(write(tmp_path / "c.tar", tar_of(contents, Compression.GZIP))) as files:
        assert sum(map(len, files._kept.values())) <= 250  # type: ignore[attr-defined]
        assert {name: files.read(name, 100) for name in files.names()} == contents


@pytest.mark.parametrize("engine", [containerd, crio, podman])
@pytest.mark.parametrize("compression", Compression)
def test_archives_of_every_engine_open(
    engine: Callable[[], dict[str, bytes]], compression: Compression, tmp_path: Path
) -> None:
    contents = engine()
    with open_checkpoint(write(tmp_path / "c.tar", tar_of(contents, compression))) as files:
        assert {name: files.read(name, 1 << 20) for name in files.names()} == contents


@pytest.mark.parametrize("compression", Compression)
def test_truncation_at_every_member_boundary_and_within_is_noticed(
    compression: Compression, tmp_path: Path, refused: Refused
) -> None:
    plain = tar_of(containerd())
    if compression is Compression.NONE:
        cuts = sorted(
            {offset for start in boundaries(plain) for offset in (start, start + 1, start + 512, start + 700)}
        )
        cuts += [len(plain) - 1024, len(plain) - 512, len(plain) - 1]
        whole = plain
    else:
        whole = compress(plain, compression)
        cuts = [*range(5, len(whole), 97), len(whole) - 1, len(whole) - 4, len(whole) - 8]
    for cut in cuts:
        if 0 < cut < len(whole):
            with refused("ArchiveTruncated", "c.tar"):
                open_checkpoint(write(tmp_path / "c.tar", whole[:cut]))


def boundaries(plain: bytes) -> list[int]:
    with tarfile.open(fileobj=io.BytesIO(plain)) as opened:
        return [entry.offset for entry in opened]


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_flipped_bytes_of_a_compressed_archive_are_noticed(compression: Compression, tmp_path: Path) -> None:
    whole = compress(tar_of(FILES), compression)
    for at in range(10, len(whole), 7):
        spoiled = bytearray(whole)
        spoiled[at] ^= 0x55
        with pytest.raises(CheckpointInvalid):
            open_checkpoint(write(tmp_path / "c.tar", bytes(spoiled)))


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_several_compressed_parts_make_one_archive(compression: Compression, tmp_path: Path) -> None:
    plain = tar_of(FILES)
    parts = compress(plain[:700], compression) + compress(plain[700:], compression)
    with open_checkpoint(write(tmp_path / "c.tar", parts)) as files:
        assert files.read("config.dump", 10) == b"{}"


def test_zeros_after_a_gzip_archive_are_padding(tmp_path: Path, refused: Refused) -> None:
    whole = compress(tar_of(FILES), Compression.GZIP)
    open_checkpoint(write(tmp_path / "c.tar", whole + bytes(512))).close()
    with refused("ArchiveDamaged"):
        open_checkpoint(write(tmp_path / "c.tar", whole + b"more"))


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_decompression_stops_at_its_limit(
    compression: Compression, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setattr(archive, "DECOMPRESSED_BYTES_MAX", 1 << 20)
    bomb = compress(tar_of({"zeros": bytes(8 << 20)}), compression)
    with refused("ArchiveTooLarge", str(1 << 20)):
        open_checkpoint(write(tmp_path / "c.tar", bomb))


def test_growing_and_shrinking_files_are_noticed(tmp_path: Path, refused: Refused) -> None:
    path = write(tmp_path / "c.tar", tar_of(FILES))
    with open_checkpoint(path) as files:
        os.truncate(path, 600)
        with refused("ArchiveTruncated"):
            files.read("checkpoint/pages-1.img", 1 << 20)


def test_file_that_grows_between_two_looks_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    with open_checkpoint(write(tmp_path / "c.tar", tar_of(FILES))) as files:
        monkeypatch.setattr(files, "size", lambda name: 1)
        with refused("ArchiveTruncated", "changed while it was read"):
            files.read("config.dump", 10)


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_compressed_archive_that_changes_while_open_is_noticed(
    compression: Compression, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setattr(archive, "KEPT_FILE_BYTES", 0)
    whole = tar_of({"big": os.urandom(100_000)}, compression)
    path = write(tmp_path / "c.tar", whole)
    gc.collect()  # what earlier tests left to it
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with open_checkpoint(path) as files:
        path.write_bytes(tar_of({"big": b"small"}, compression))
        with refused("ArchiveTruncated", "c.tar"):
            files.read("big", 1 << 20)
        path.write_bytes(whole[:20])
        with refused("ArchiveTruncated", "c.tar"):
            files.open("big")
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_disk_errors_are_checkpoint_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    path = write(tmp_path / "c.tar", tar_of(FILES))
    folder = write_directory(tmp_path / "folder", FILES)

    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    for target, name in ((path, "pread"), (folder, "scandir")):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, broken)
            with refused("CheckpointUnreadable", str(target), "Input/output error"):
                open_checkpoint(target)
    with open_checkpoint(path) as files, files.open("config.dump") as member_file:
        monkeypatch.setattr(os, "preadv", broken)
        with refused("CheckpointUnreadable", "config.dump", "Input/output error"):
            member_file.read()


def test_subdirectory_of_an_archive(tmp_path: Path) -> None:
    inside = {f"rootfs/.nri-restore/{name}": content for name, content in FILES.items()} | {"rootfs/other": b"x"}
    path = write(tmp_path / "c.tar", tar_of(inside))
    with open_checkpoint(path, subdirectory="rootfs/.nri-restore") as files:
        assert {name: files.read(name, 1 << 20) for name in files.names()} == FILES


@pytest.mark.parametrize("subdirectory", ["../x", "/etc", "a/../../b"])
def test_subdirectory_that_leads_outside_is_refused(stored: Path, subdirectory: str, refused: Refused) -> None:
    with refused("MemberName"):
        open_checkpoint(stored, subdirectory=subdirectory)


def test_what_cannot_be_opened_is_named(tmp_path: Path, refused: Refused) -> None:
    with refused("CheckpointUnreadable", "nowhere.tar", "No such file"):
        open_checkpoint(tmp_path / "nowhere.tar")


def test_link_to_an_archive_is_not_followed(stored: Path, tmp_path: Path, refused: Refused) -> None:
    link = tmp_path / "latest"
    link.symlink_to(stored)
    with refused("CheckpointUnreadable", "symbolic link", "latest"):
        open_checkpoint(link)


def test_fifo_does_not_hang_the_reader(tmp_path: Path, refused: Refused) -> None:
    os.mkfifo(tmp_path / "fifo")
    with refused("CheckpointUnreadable", "neither a file nor a directory"):
        open_checkpoint(tmp_path / "fifo")


@pytest.mark.parametrize("content", [b"", b"x", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"not a tar" * 200, bytes(512)])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid) as caught:
        open_checkpoint(write(tmp_path / "c.tar", content))
    assert caught.value.reason in ("ArchiveTruncated", "ArchiveDamaged")


def test_refused_archive_leaves_no_descriptor_open(tmp_path: Path) -> None:
    bad = [b"", compress(b"x", Compression.GZIP), tar_of_members([member("a", kind=tarfile.SYMTYPE)])]
    paths = [write(tmp_path / f"{number}.tar", content) for number, content in enumerate(bad)]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to("/etc/passwd")
    gc.collect()  # what earlier tests left to it
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for path in [*paths, tmp_path / "folder"]:
        with pytest.raises(CheckpointInvalid):
            open_checkpoint(path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_large_plain_archive_is_indexed_without_reading_its_contents(tmp_path: Path) -> None:
    """10 GiB of holes: reading them would take seconds and show in the time, not in the result."""
    entry = tarfile.TarInfo("checkpoint/pages-1.img")
    entry.size = 10 << 30
    header = entry.tobuf(tarfile.GNU_FORMAT)
    path = tmp_path / "c.tar"
    with path.open("wb") as out:
        out.write(header)
        out.seek(entry.size, os.SEEK_CUR)
        out.write(tar_of({"config.dump": b"{}"}))
    with open_checkpoint(path) as files:
        assert files.size("checkpoint/pages-1.img") == 10 << 30
        assert files.read("config.dump", 10) == b"{}"
        with files.open("checkpoint/pages-1.img") as pages:
            pages.seek((10 << 30) - 1)
            assert pages.read() == b"\0"


def test_real_checkpoints_open(sample: Path) -> None:
    with open_checkpoint(sample) as files, tarfile.open(sample) as reference:
        expected = {entry.name: entry.size for entry in reference if entry.isreg()}
        assert {name: files.size(name) for name in files.names()} == expected
        for name in files.names():
            extracted = reference.extractfile(name)
            assert extracted is not None
            assert files.read(name, 1 << 20) == extracted.read()
