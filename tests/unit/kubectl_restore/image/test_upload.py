from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from kubectl_restore.image import registry as registry_module
from kubectl_restore.image import upload as upload_module
from kubectl_restore.image.access import Access
from kubectl_restore.image.measure import Measured, Measurement
from kubectl_restore.image.progress import Silent
from kubectl_restore.image.registry import Registry
from kubectl_restore.image.source import PIECE_BYTES, Literal, Stream
from kubectl_restore.image.upload import Upload
from shared import oci
from shared.errors import CheckpointInvalid, RestoreError, Unavailable
from tests.support.fake_registry import FakeRegistry, Faults
from tests.unit.kubectl_restore.conftest import StartRegistry

CHUNK = 256 << 10
CONTENT = os.urandom(1 << 20) + b"end"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_module, "CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(upload_module, "PAUSES_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(registry_module, "_RETRY_PAUSES_S", (0.0, 0.0))


class _Counted:
    """Bytes in pieces of 64 KiB that remember how often they were read."""

    size = len(CONTENT)

    def __init__(self) -> None:
        self.given = 0

    def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        for start in range(offset, len(CONTENT), 1 << 16):
            self.given += 1
            yield CONTENT[start : start + (1 << 16)]


def _send(registry: FakeRegistry, source: Stream | None = None) -> Measured:
    client = Registry(registry.host, "ck", Access("always"), push=True)
    with (
        Measurement() as measurement,
        Upload(client, source or Literal(CONTENT), "blob", Silent()) as upload,
    ):
        return upload.send(measurement)


def _assert_arrived(registry: FakeRegistry, measured: Measured) -> None:
    assert measured.digest == oci.digest_of(CONTENT)
    assert registry.blobs["ck", measured.digest] == CONTENT
    assert not registry.uploads


def test_a_blob_is_read_once_and_sent_in_one_request(start_registry: StartRegistry) -> None:
    registry, source = start_registry(), _Counted()
    _assert_arrived(registry, _send(registry, source))
    assert source.given == -(-len(CONTENT) // (1 << 16))
    assert [method for method, _, _ in registry.requests] == ["POST", "PATCH", "PUT"]
    assert "Content-Range" not in registry.requests[1][2]


def test_an_empty_blob_needs_no_content(start_registry: StartRegistry) -> None:
    registry = start_registry()
    assert _send(registry, Literal(b"")).digest in {digest for _, digest in registry.blobs}


def test_an_upload_goes_on_where_it_broke_off(start_registry: StartRegistry) -> None:
    registry, source = start_registry(faults=Faults(drop_patch_after=[300_000])), _Counted()
    _assert_arrived(registry, _send(registry, source))
    ranges = [headers.get("Content-Range") for method, _, headers in registry.requests if method == "PATCH"]
    assert ranges[0] is None
    assert ranges[1] == f"300000-{300_000 + CHUNK - 1}"
    assert registry.count("POST") == 1


class _Unsized(_Counted):
    size = None  # type: ignore[assignment]


def test_a_stream_of_unknown_size_is_sent_in_one_request(start_registry: StartRegistry) -> None:
    registry, source = start_registry(), _Unsized()
    _assert_arrived(registry, _send(registry, source))
    assert source.given == -(-len(CONTENT) // (1 << 16))
    patches = [headers for method, _, headers in registry.requests if method == "PATCH"]
    assert [("Content-Length" in headers, "Content-Range" in headers) for headers in patches] == [(False, False)]


@pytest.mark.parametrize(
    "faults",
    [{"drop_patch_after": [300_000, 100, 200_000]}, {"largest_body": CHUNK}, {"fail": {"PATCH": [411, 0, 0, 0, 0, 0]}}],
)
@pytest.mark.parametrize("forget", [False, True])
def test_a_stream_of_unknown_size_goes_on_in_chunks_of_known_size(
    faults: dict[str, Any], forget: bool, start_registry: StartRegistry
) -> None:
    registry = start_registry(faults=Faults(**deepcopy(faults), forget_dropped=forget))
    _assert_arrived(registry, _send(registry, _Unsized()))
    chunks = [headers for method, _, headers in registry.requests if method == "PATCH"][1:]
    assert chunks
    assert all(int(headers["Content-Length"]) <= CHUNK for headers in chunks)


class _Watched(_Unsized):
    """Knows how many readers were under way when one more began."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = 0
        self.beside: list[int] = []

    def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        self.beside.append(self.reading)
        self.reading += 1
        try:
            yield from super().pieces(offset, piece_bytes)
        finally:
            self.reading -= 1


def test_what_a_broken_request_was_reading_is_not_left_to_the_garbage_collector(start_registry: StartRegistry) -> None:
    registry, source = start_registry(faults=Faults(drop_patch_after=[300_000, 100])), _Watched()
    gc.disable()
    try:
        _assert_arrived(registry, _send(registry, source))
    finally:
        gc.enable()
    assert len(source.beside) > 2
    assert not any(source.beside)
    assert not source.reading


def test_a_stream_of_unknown_size_may_end_with_a_chunk(
    start_registry: StartRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "CHUNK_BYTES", 1 << 16)
    monkeypatch.setattr(sys.modules[__name__], "CONTENT", CONTENT[: 1 << 18])
    registry = start_registry(faults=Faults(drop_patch_after=[1 << 17]))
    _assert_arrived(registry, _send(registry, _Unsized()))
    assert registry.count("PATCH") == 3


def test_a_registry_that_forgot_the_upload_gets_it_anew(start_registry: StartRegistry) -> None:
    registry = start_registry(faults=Faults(drop_patch_after=[300_000], forget_dropped=True))
    _assert_arrived(registry, _send(registry))
    assert registry.count("POST") == 2, "none is repeated because an answer before it was not read to its end"


def test_it_is_given_up_when_nothing_more_arrives(start_registry: StartRegistry) -> None:
    registry = start_registry(faults=Faults(drop_patch_after=[0] * 100))
    with pytest.raises(Unavailable, match=r"does not get on after 3 tries: the connection .* broke off") as refusal:
        _send(registry)
    assert refusal.value.reason == "RegistryInterrupted"
    assert registry.count("PATCH") == 4
    assert not registry.uploads, "cancelled"
    assert not registry.blobs


def test_it_is_given_up_when_the_registry_accepts_and_keeps_nothing(start_registry: StartRegistry) -> None:
    registry = start_registry(faults=Faults(keep_nothing=True))
    with pytest.raises(Unavailable, match=r"does not get on after 3 tries: .* took bytes and says it has 0 of them"):
        _send(registry)
    assert registry.count("PATCH") == 4
    assert not registry.uploads, "cancelled"


def test_one_byte_arrives_though_its_range_reads_like_none(
    start_registry: StartRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "CONTENT", b"1")
    registry = start_registry()
    _assert_arrived(registry, _send(registry, Literal(b"1")))
    assert registry.count("PATCH") == 1


def test_slow_progress_is_progress(start_registry: StartRegistry) -> None:
    registry = start_registry(faults=Faults(drop_patch_after=[100_000] * 8))
    _assert_arrived(registry, _send(registry))
    assert registry.count("PATCH") >= 9


def test_a_proxy_with_a_size_limit_gets_smaller_requests(start_registry: StartRegistry) -> None:
    registry = start_registry(faults=Faults(largest_body=CHUNK))
    _assert_arrived(registry, _send(registry))


def test_a_limit_below_every_chunk_is_a_sentence(start_registry: StartRegistry) -> None:
    registry = start_registry(faults=Faults(largest_body=1000))
    with pytest.raises(RestoreError) as refusal:
        _send(registry)
    assert refusal.value.reason in ("RegistryTooLarge", "RegistryInterrupted")
    assert not registry.uploads


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_failing_registry_is_tried_again(method: str, start_registry: StartRegistry) -> None:
    registry = start_registry(faults=Faults(fail={method: [503, 500]}))
    _assert_arrived(registry, _send(registry))


def test_a_lost_answer_to_the_last_request_does_not_send_the_blob_twice(start_registry: StartRegistry) -> None:
    registry = start_registry(faults=Faults(lose_commit_answer=1))
    _assert_arrived(registry, _send(registry))
    assert registry.count("PATCH") == 1


def test_a_refusal_cancels_the_upload(start_registry: StartRegistry) -> None:
    registry = start_registry(faults=Faults(fail={"PUT": [400]}))
    with pytest.raises(RestoreError, match="planned fault") as refusal:
        _send(registry)
    assert refusal.value.reason == "RegistryRefused"
    assert registry.count("DELETE") == 1
    assert not registry.uploads


def test_a_failing_source_cancels_the_upload_and_keeps_its_own_sentence(start_registry: StartRegistry) -> None:
    class Fails(_Counted):
        def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
            yield CONTENT[: 1 << 18]
            raise CheckpointInvalid("FileChanged", "the archive changed")

    registry = start_registry()
    with pytest.raises(CheckpointInvalid, match="the archive changed"):
        _send(registry, Fails())
    assert registry.count("PATCH") == 1
    assert not registry.uploads


def test_an_interrupt_cancels_the_upload(start_registry: StartRegistry) -> None:
    class Interrupted(_Counted):
        def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
            yield CONTENT[: 1 << 18]
            raise KeyboardInterrupt

    registry = start_registry()
    with pytest.raises(KeyboardInterrupt):
        _send(registry, Interrupted())
    assert not registry.uploads


def test_an_upload_without_a_place_to_go_is_refused(
    start_registry: StartRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = start_registry()
    answer = registry_module.Answer(202, {}, b"")
    monkeypatch.setattr(Registry, "request", lambda *_, **__: answer)
    with pytest.raises(RestoreError, match="without a Location"):
        _send(registry)
