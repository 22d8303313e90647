from __future__ import annotations

import gzip
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from kubectl_restore.image import measure
from kubectl_restore.image.measure import Ahead, Measured, Measurement
from kubectl_restore.image.source import PIECE_BYTES, FileRange, Literal
from shared.compression import Compression
from shared.errors import CheckpointInvalid, RestoreError

CONTENT = os.urandom(3 << 20) + bytes(1 << 20)
ZSTD = zstandard.ZstdCompressor()
PACKED = {
    Compression.NONE: CONTENT,
    Compression.GZIP: gzip.compress(CONTENT[:100], 1) + gzip.compress(CONTENT[100:], 1),
    Compression.ZSTD: ZSTD.compress(CONTENT[:100]) + ZSTD.compress(CONTENT[100:]),
}


def _pieces(content: bytes, size: int = 70_000) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("compression", list(Compression))
def test_both_digests_and_the_size_come_from_one_pass(compression: Compression) -> None:
    packed = PACKED[compression]
    with Measurement(compression) as measurement:
        assert b"".join(measurement.tee(_pieces(packed))) == packed
        measured = measurement.result()
    assert (measured.digest, measured.diff_id, measured.size) == (_digest(packed), _digest(CONTENT), len(packed))


@pytest.mark.parametrize("compression", list(Compression))
def test_bytes_sent_again_are_hashed_once(compression: Compression) -> None:
    packed = PACKED[compression]
    with Measurement(compression) as measurement:
        first = measurement.tee(_pieces(packed))
        for _ in range(3):
            next(first)
        for offset in (0, 50_000, 140_001):
            half = measurement.tee(_pieces(packed[offset:]), offset)
            assert next(half) == packed[offset : offset + 70_000]
            assert next(half) == packed[offset + 70_000 : offset + 140_000]
        list(measurement.tee(_pieces(packed[140_000:]), 140_000))
        measured = measurement.result()
    assert (measured.digest, measured.diff_id, measured.size) == (_digest(packed), _digest(CONTENT), len(packed))


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
@pytest.mark.parametrize("fault", ["cut", "garbage"])
def test_a_stream_that_does_not_decompress_is_refused_and_does_not_block(compression: Compression, fault: str) -> None:
    packed = PACKED[compression]
    spoilt = packed[:-9] if fault == "cut" else os.urandom(len(packed))
    with Measurement(compression) as measurement:
        assert b"".join(measurement.tee(_pieces(spoilt))) == spoilt
        with pytest.raises(CheckpointInvalid, match="does not decompress") as refusal:
            measurement.result()
    assert refusal.value.reason == "LayerDamaged"


def test_the_thread_ends_with_the_context_even_after_an_error() -> None:
    before = threading.active_count()
    with pytest.raises(KeyError), Measurement() as measurement:
        next(measurement.tee(_pieces(CONTENT)))
        raise KeyError
    assert threading.active_count() == before


def test_no_bytes_have_the_digest_of_no_bytes() -> None:
    with Measurement() as measurement:
        assert list(measurement.tee(iter(()))) == []
        assert measurement.result().digest == _digest(b"")


def test_a_digest_worked_out_ahead_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    source = FileRange.whole(path)
    with Ahead(source) as ahead:
        assert b"".join(ahead.tee(source.pieces())) == CONTENT
        assert ahead.result() == Measured(_digest(CONTENT), _digest(CONTENT), len(CONTENT))


def test_the_hash_waits_for_a_writer_that_is_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LEAD_BYTES", 100_000)
    monkeypatch.setattr(measure, "_AHEAD_PIECE_BYTES", 10_000)
    given = 0

    class Counted:
        size = len(CONTENT)

        def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
            nonlocal given
            for piece in _pieces(CONTENT, piece_bytes):
                given += len(piece)
                yield piece

    with Ahead(Counted()) as ahead:
        time.sleep(0.05)
        assert given <= 120_000
        written = 0
        for piece in ahead.tee(_pieces(CONTENT)):
            written += len(piece)
            assert given <= 120_000 + written
        assert ahead.result().digest == _digest(CONTENT)
    assert given == len(CONTENT)


def test_what_reading_ahead_meets_is_raised_at_the_end() -> None:
    class Fails:
        size = 10

        def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
            yield b"some"
            raise RestoreError("Test", "cannot read on")

    with Ahead(Fails()) as ahead, pytest.raises(RestoreError, match="cannot read on"):
        ahead.result()


def test_a_build_that_ends_early_stops_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LEAD_BYTES", 1)
    before, interval_s = threading.active_count(), sys.getswitchinterval()
    with pytest.raises(KeyError), Ahead(Literal(CONTENT)):
        assert sys.getswitchinterval() < interval_s
        raise KeyError
    assert threading.active_count() == before
    assert sys.getswitchinterval() == interval_s
