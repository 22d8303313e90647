from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from kubectl_restore.image import compressing as compressing_module
from kubectl_restore.image.compressing import BLOCK_BYTES, Compressing, Decompressing
from kubectl_restore.image.source import PIECE_BYTES, FileRange, Joined, Literal, Stream
from shared import oci
from shared.compression import Compression
from shared.errors import CheckpointInvalid
from tests.support.pulled_image import decompressed

BOTH = [Compression.GZIP, Compression.ZSTD]
HALF = os.urandom(BLOCK_BYTES // 2)
CONTENT = HALF + bytes(3 * BLOCK_BYTES) + HALF + b"end"
"""Four blocks and the beginning of a fifth."""


def _all(stream: Stream, offset: int = 0) -> bytes:
    return b"".join(stream.pieces(offset))


@pytest.mark.parametrize("compression", BOTH)
@pytest.mark.parametrize("content", [b"", b"x", CONTENT, CONTENT[: 2 * BLOCK_BYTES]])
def test_the_stream_decompresses_to_what_it_was(content: bytes, compression: Compression) -> None:
    stream = Compressing(Literal(content), compression)
    compressed = _all(stream)
    assert decompressed(compressed) == content
    assert f"sha256:{stream.plain_hash.hexdigest()}" == oci.digest_of(content)
    assert len(compressed) < len(content) or len(content) < 100


def test_gzip_is_members_and_zstd_frames_with_checksums() -> None:
    whole = _all(Compressing(Literal(CONTENT), Compression.GZIP))
    assert gzip.decompress(whole) == CONTENT
    frame = zstandard.get_frame_parameters(_all(Compressing(Literal(CONTENT), Compression.ZSTD)))
    assert frame.has_checksum
    assert frame.content_size == BLOCK_BYTES


@pytest.mark.parametrize("compression", BOTH)
def test_the_stream_is_read_on_from_anywhere(compression: Compression) -> None:
    stream = Compressing(Literal(CONTENT), compression)
    whole = _all(stream)
    for offset in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1, len(whole)):
        assert _all(stream, offset) == whole[offset:]
        assert _all(Compressing(Literal(CONTENT), compression), offset) == whole[offset:], "also before it was read"
    assert f"sha256:{stream.plain_hash.hexdigest()}" == oci.digest_of(CONTENT), "nothing was hashed twice"


def test_what_is_read_on_is_not_compressed_from_the_start() -> None:
    class Watched(Literal):
        offsets: list[int] = []  # noqa: RUF012

        def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
            self.offsets.append(offset)
            return super().pieces(offset, piece_bytes)

    source = Watched(CONTENT)
    stream = Compressing(source, Compression.ZSTD)
    whole = _all(stream)
    _all(stream, len(whole) - 1)
    assert source.offsets == [0, 4 * BLOCK_BYTES]


@pytest.mark.parametrize("compression", BOTH)
def test_neither_processors_nor_pieces_change_a_byte(compression: Compression, monkeypatch: pytest.MonkeyPatch) -> None:
    results = set()
    for workers in (1, 3, 64):
        monkeypatch.setattr(os, "cpu_count", lambda workers=workers: workers)
        results.add(_all(Compressing(Literal(CONTENT), compression)))
    parts = Joined([Literal(CONTENT[start : start + 700_001]) for start in range(0, len(CONTENT), 700_001)])
    results.add(_all(Compressing(parts, compression)))
    assert len(results) == 1


def test_a_file_that_changes_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    pieces = Compressing(FileRange.whole(path), Compression.ZSTD).pieces()
    next(pieces)
    path.write_bytes(CONTENT + b"more")
    with pytest.raises(CheckpointInvalid, match="changed while it was read"):
        list(pieces)


@pytest.mark.parametrize("compression", BOTH)
def test_decompressing_is_the_way_back(compression: Compression) -> None:
    packed = Literal(_all(Compressing(Literal(CONTENT), compression)))
    plain = Decompressing(packed, compression, "the layer")
    assert plain.size is None
    for offset in (0, 5, len(CONTENT) - 1, len(CONTENT)):
        assert _all(plain, offset) == CONTENT[offset:]


@pytest.mark.parametrize(("spoil", "reason"), [(slice(0, -1), "ArchiveTruncated"), (slice(3, None), "ArchiveDamaged")])
@pytest.mark.parametrize("compression", BOTH)
def test_what_does_not_decompress_is_named(compression: Compression, spoil: slice, reason: str) -> None:
    packed = _all(Compressing(Literal(CONTENT), compression))
    with pytest.raises(CheckpointInvalid, match="the layer") as refusal:
        _all(Decompressing(Literal(packed[spoil]), compression, "the layer"))
    assert refusal.value.reason == reason


def test_a_stream_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressing_module, "_DECOMPRESSED_BYTES_MAX", 1 << 20)
    packed = Literal(_all(Compressing(Literal(bytes(4 << 20)), Compression.GZIP)))
    with pytest.raises(CheckpointInvalid) as refusal:
        _all(Decompressing(packed, Compression.GZIP, "the layer"))
    assert refusal.value.reason == "ArchiveTooLarge"
