from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from kubectl_restore.image.source import PIECE_BYTES, FileRange, Joined, Literal, Opened, Source
from shared.errors import CheckpointInvalid, RestoreError

CONTENT = os.urandom(3 * PIECE_BYTES + 17)


class _Forward(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise AssertionError("not seekable")


def _sources(tmp_path: Path) -> dict[str, Source]:
    path = tmp_path / "file"
    path.write_bytes(b"before" + CONTENT + b"after")
    third = len(CONTENT) // 3
    return {
        "literal": Literal(CONTENT),
        "file": FileRange.whole(path).part(6, len(CONTENT)),
        "seekable": Opened("x", len(CONTENT), lambda: io.BytesIO(CONTENT)),
        "forward": Opened("x", len(CONTENT), lambda: _Forward(CONTENT)),
        "joined": Joined([Literal(CONTENT[:third]), Literal(b""), Literal(CONTENT[third:])]),
    }


@pytest.mark.parametrize("kind", ["literal", "file", "seekable", "forward", "joined"])
@pytest.mark.parametrize("offset", [0, 1, PIECE_BYTES, len(CONTENT) // 3, len(CONTENT) - 1, len(CONTENT)])
def test_every_source_gives_its_bytes_from_any_offset(kind: str, offset: int, tmp_path: Path) -> None:
    source = _sources(tmp_path)[kind]
    assert source.size == len(CONTENT)
    assert b"".join(source.pieces(offset)) == CONTENT[offset:]
    assert b"".join(source.pieces(offset)) == CONTENT[offset:], "and again"


def test_pieces_stay_small_whatever_the_size(tmp_path: Path) -> None:
    for kind in ("file", "seekable"):
        assert max(map(len, _sources(tmp_path)[kind].pieces())) <= PIECE_BYTES


def test_a_file_that_is_replaced_while_it_is_read_is_refused_before_its_last_piece(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    pieces = FileRange.whole(path).pieces()
    next(pieces)
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(1, 1))
    with pytest.raises(CheckpointInvalid, match="changed while it was read") as refusal:
        list(pieces)
    assert refusal.value.reason == "FileChanged"


def test_a_file_that_becomes_shorter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    source = FileRange.whole(path)
    os.truncate(path, PIECE_BYTES)
    with pytest.raises(CheckpointInvalid, match="changed while it was read"):
        list(source.pieces())


def _copied(source: FileRange, path: Path) -> tuple[bytes, int]:
    with path.open("wb") as file:
        file.write(b"head")
        steps = sum(len(step) for step in source.copy_to(file))
    return path.read_bytes(), steps


@pytest.mark.parametrize("kernel", ["copies", "cannot", "has no such call"])
def test_a_range_is_appended_to_a_file_with_and_without_the_kernels_help(
    kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before" + CONTENT + b"after")
    if kernel == "cannot":

        def refuse(*_: object) -> int:
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(os, "copy_file_range", refuse)
    elif kernel == "has no such call":
        monkeypatch.delattr(os, "copy_file_range")
    source = FileRange.whole(path).part(6, len(CONTENT))
    assert _copied(source, tmp_path / "out") == (b"head" + CONTENT, len(CONTENT))


def test_copying_a_file_that_changes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    source = FileRange.whole(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(CheckpointInvalid, match="changed while it was read"):
        _copied(source, tmp_path / "out")
    os.truncate(path, 10)
    with pytest.raises(CheckpointInvalid, match="changed while it was read"):
        _copied(source, tmp_path / "out")


def test_a_stream_that_ends_early_is_refused() -> None:
    with pytest.raises(CheckpointInvalid, match="layer of x ends 3 bytes early"):
        list(Opened("layer of x", 5, lambda: io.BytesIO(b"12")).pieces())


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match=r"cannot read .*nothing: No such file or directory"):
        FileRange.whole(tmp_path / "nothing")
    path = tmp_path / "file"
    path.write_bytes(b"x")
    source = FileRange.whole(path)
    path.unlink()
    with pytest.raises(RestoreError, match="No such file or directory"):
        list(source.pieces())
