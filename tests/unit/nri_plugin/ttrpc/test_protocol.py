from __future__ import annotations

import contextlib
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nri_plugin.ttrpc.errors import MessageTooLarge, ProtocolError
from nri_plugin.ttrpc.protocol import (
    MAX_ERROR_CHARACTERS,
    MAX_MESSAGE_BYTES,
    Client,
    Code,
    RequestReceived,
    ResponseReceived,
    Server,
)
from nri_plugin.ttrpc.ttrpc_pb2 import Request, Response, Status

HEADER = struct.Struct(">IIBB")
REQUEST, RESPONSE, DATA = 1, 2, 3


def message(stream_id: int, kind: int, payload: bytes) -> bytes:
    return HEADER.pack(len(payload), stream_id, kind, 0) + payload


def call(stream_id: int, method: str = "Ping", payload: bytes = b"", timeout_s: float = 0) -> bytes:
    request = Request(service="svc", method=method, payload=payload, timeout_nano=int(timeout_s * 1e9))
    return message(stream_id, REQUEST, request.SerializeToString())


def answered(chunks: list[bytes]) -> list[tuple[int, Response]]:
    """The responses among a server's chunks, whatever the chunks' cuts."""
    data, responses = b"".join(chunks), []
    while data:
        length, stream_id, kind, flags = HEADER.unpack_from(data)
        assert (kind, flags) == (RESPONSE, 0)
        responses.append((stream_id, Response.FromString(data[10 : 10 + length])))
        data = data[10 + length :]
    return responses


class TestServer:
    def test_a_call_arrives_with_its_deadline(self) -> None:
        assert Server().feed(call(1, "Ping", b"hello", 1.5)) == [RequestReceived(1, "svc", "Ping", b"hello", 1.5)]

    def test_a_call_without_a_deadline_has_none(self) -> None:
        (event,) = Server().feed(call(1))
        assert event.timeout_s == 0

    def test_a_negative_deadline_is_none(self) -> None:
        (event,) = Server().feed(call(1, timeout_s=-3))
        assert event.timeout_s == 0

    def test_metadata_is_ignored_even_when_it_is_not_utf8(self) -> None:
        metadata = b"\x2a\x04\x0a\x02\xff\xfe"  # field 5, a KeyValue whose key is no UTF-8
        payload = Request(service="svc", method="Ping").SerializeToString() + metadata
        assert Server().feed(message(1, REQUEST, payload)) == [RequestReceived(1, "svc", "Ping", b"", 0)]

    def test_an_answer_is_a_header_chunk_and_a_payload_chunk(self) -> None:
        server = Server()
        server.feed(call(1))
        server.send_response(1, b"x" * 5000)
        header, payload = server.chunks_to_send()
        assert len(header) == 10
        assert HEADER.unpack(header) == (len(payload), 1, RESPONSE, 0)
        assert Response.FromString(payload).payload == b"x" * 5000

    def test_an_empty_answer_is_a_header_alone(self) -> None:
        server = Server()
        server.feed(call(1))
        server.send_response(1, b"")
        assert server.chunks_to_send() == [HEADER.pack(0, 1, RESPONSE, 0)]

    def test_what_was_sent_is_not_sent_again(self) -> None:
        server = Server()
        server.feed(call(1))
        server.send_response(1, b"")
        server.chunks_to_send()
        assert server.chunks_to_send() == []

    def test_calls_are_answered_in_any_order(self) -> None:
        server = Server()
        server.feed(call(1) + call(3) + call(7))
        for stream_id in (7, 1, 3):
            server.send_response(stream_id, b"%d" % stream_id)
        assert [(i, r.payload) for i, r in answered(server.chunks_to_send())] == [(7, b"7"), (1, b"1"), (3, b"3")]

    def test_an_error_carries_code_and_text(self) -> None:
        server = Server()
        server.feed(call(1))
        server.send_error(1, Code.FAILED_PRECONDITION, "MountMissing: no /cache")
        ((_, response),) = answered(server.chunks_to_send())
        assert (response.status.code, response.status.message) == (9, b"MountMissing: no /cache")

    @pytest.mark.parametrize(
        ("text", "sent"),
        [
            ("path /a\udcff\ud800b", "path /a??b"),
            ("two\nlines\tand\x00nul", "two lines and nul"),
            ("ünïcode → stays", "ünïcode → stays"),
            ("x" * (MAX_ERROR_CHARACTERS + 1), "x" * MAX_ERROR_CHARACTERS),
        ],
    )
    def test_an_errors_text_is_one_line_of_valid_utf8(self, text: str, sent: str) -> None:
        server = Server()
        server.feed(call(1))
        server.send_error(1, Code.INTERNAL, text)
        ((_, response),) = answered(server.chunks_to_send())
        assert response.status.message.decode() == sent

    def test_an_answer_of_exactly_the_limit_is_sent(self) -> None:
        server = Server()
        server.feed(call(1))
        overhead = len(Response(payload=b"x" * (MAX_MESSAGE_BYTES - 16)).SerializeToString()) - (MAX_MESSAGE_BYTES - 16)
        server.send_response(1, b"x" * (MAX_MESSAGE_BYTES - overhead))
        _header, payload = server.chunks_to_send()
        assert len(payload) == MAX_MESSAGE_BYTES
        assert Response.FromString(payload).status.code == 0

    def test_an_answer_over_the_limit_becomes_resource_exhausted(self) -> None:
        server = Server()
        server.feed(call(1))
        server.send_response(1, b"x" * MAX_MESSAGE_BYTES)
        ((_, response),) = answered(server.chunks_to_send())
        assert response.status.code == Code.RESOURCE_EXHAUSTED
        assert not response.payload

    def test_a_call_of_exactly_the_limit_is_taken(self) -> None:
        envelope = Request(payload=b"x" * (MAX_MESSAGE_BYTES - 5)).SerializeToString()
        assert len(envelope) == MAX_MESSAGE_BYTES
        (event,) = Server().feed(message(1, REQUEST, envelope))
        assert len(event.payload) == MAX_MESSAGE_BYTES - 5

    def test_a_call_over_the_limit_is_skipped_and_answered_and_the_next_one_is_served(self) -> None:
        server = Server()
        data = message(1, REQUEST, b"\0" * (MAX_MESSAGE_BYTES + 1)) + call(3, "Next")
        events = [event for start in range(0, len(data), 65536) for event in server.feed(data[start : start + 65536])]
        assert [event.method for event in events] == ["Next"]
        ((stream_id, response),) = answered(server.chunks_to_send())
        assert (stream_id, response.status.code) == (1, Code.RESOURCE_EXHAUSTED)

    def test_skipping_stores_nothing(self) -> None:
        server = Server()
        server.feed(HEADER.pack(0xFFFFFFFF, 1, REQUEST, 0))
        for _ in range(64):
            assert server.feed(b"x" * 65536) == []
        assert len(server._incoming._buffer) == 0

    @pytest.mark.parametrize("kind", [RESPONSE, DATA, 0, 77])
    def test_other_message_types_are_ignored(self, kind: int) -> None:
        server = Server()
        (event,) = server.feed(message(2, kind, b"whatever") + call(1))
        assert event.stream_id == 1
        assert server.chunks_to_send() == []

    @pytest.mark.parametrize("stream_ids", [[2], [0], [3, 3], [5, 3]])
    def test_stream_ids_must_be_odd_and_increase(self, stream_ids: list[int]) -> None:
        with pytest.raises(ProtocolError, match="odd and increase"):
            Server().feed(b"".join(call(stream_id) for stream_id in stream_ids))

    def test_a_broken_envelope_is_a_protocol_error(self) -> None:
        with pytest.raises(ProtocolError, match="not a ttrpc request"):
            Server().feed(message(1, REQUEST, b"\xff\xff\xff"))

    def test_answering_twice_or_unasked_is_an_error(self) -> None:
        server = Server()
        server.feed(call(1))
        server.send_response(1, b"")
        with pytest.raises(ProtocolError, match="not waiting"):
            server.send_response(1, b"")
        with pytest.raises(ProtocolError, match="not waiting"):
            server.send_error(3, Code.INTERNAL, "")


class TestClient:
    def test_stream_ids_are_odd_and_increase(self) -> None:
        client = Client()
        assert [client.send_request("svc", "Ping", b"", 1) for _ in range(3)] == [1, 3, 5]

    def test_a_call_is_a_header_chunk_and_a_payload_chunk(self) -> None:
        client = Client()
        client.send_request("svc", "Ping", b"hello", 2.5)
        header, payload = client.chunks_to_send()
        assert HEADER.unpack(header) == (len(payload), 1, REQUEST, 0)
        assert Request.FromString(payload) == Request(
            service="svc", method="Ping", payload=b"hello", timeout_nano=2_500_000_000
        )
        assert client.chunks_to_send() == []

    def test_a_call_over_the_limit_is_an_error_here_and_uses_no_stream(self) -> None:
        client = Client()
        with pytest.raises(MessageTooLarge):
            client.send_request("svc", "Ping", b"x" * MAX_MESSAGE_BYTES, 1)
        assert client.chunks_to_send() == []
        assert client.send_request("svc", "Ping", b"", 1) == 1

    def test_answers_find_their_calls(self) -> None:
        client = Client()
        client.send_request("svc", "A", b"", 1)
        client.send_request("svc", "B", b"", 1)
        failed = Response(status=Status(code=5, message=b"not \xff found")).SerializeToString()
        good = Response(payload=b"yes").SerializeToString()
        assert client.feed(message(3, RESPONSE, failed) + message(1, RESPONSE, good)) == [
            ResponseReceived(3, 5, "not � found", b""),
            ResponseReceived(1, 0, "", b"yes"),
        ]

    def test_an_empty_message_is_success(self) -> None:
        client = Client()
        client.send_request("svc", "A", b"", 1)
        assert client.feed(message(1, RESPONSE, b"")) == [ResponseReceived(1, 0, "", b"")]

    @pytest.mark.parametrize("received", [message(1, DATA, b""), message(1, REQUEST, b""), message(9, RESPONSE, b"")])
    def test_other_types_and_answers_to_nothing_are_dropped(self, received: bytes) -> None:
        client = Client()
        client.send_request("svc", "A", b"", 1)
        assert client.feed(received) == []
        assert client.feed(message(1, RESPONSE, b"")) == [ResponseReceived(1, 0, "", b"")]

    def test_a_second_answer_is_dropped(self) -> None:
        client = Client()
        client.send_request("svc", "A", b"", 1)
        assert len(client.feed(message(1, RESPONSE, b""))) == 1
        assert client.feed(message(1, RESPONSE, b"")) == []

    def test_an_answer_over_the_limit_is_resource_exhausted(self) -> None:
        client = Client()
        client.send_request("svc", "A", b"", 1)
        (event,) = client.feed(message(1, RESPONSE, b"\0" * (MAX_MESSAGE_BYTES + 1)))
        assert event.code == Code.RESOURCE_EXHAUSTED

    def test_a_broken_envelope_is_a_protocol_error(self) -> None:
        client = Client()
        client.send_request("svc", "A", b"", 1)
        with pytest.raises(ProtocolError, match="not a ttrpc response"):
            client.feed(message(1, RESPONSE, b"\xff\xff\xff"))


@given(st.lists(st.binary(max_size=40), max_size=10), st.lists(st.integers(0, 800), max_size=20))
def test_any_split_gives_the_same_calls(payloads: list[bytes], cuts: list[int]) -> None:
    data = b"".join(call(2 * n + 1, "Ping", payload) for n, payload in enumerate(payloads))
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    server = Server()
    events = [event for start, end in itertools.pairwise(places) for event in server.feed(data[start:end])]
    assert [(event.stream_id, event.payload) for event in events] == [
        (2 * n + 1, payload) for n, payload in enumerate(payloads)
    ]


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_garbage_gives_events_or_a_protocol_error(received: list[bytes]) -> None:
    server, client = Server(), Client()
    for _ in range(3):
        client.send_request("svc", "A", b"", 1)
    for role in (server, client):
        try:
            for data in received:
                role.feed(data)
        except ProtocolError:
            pass


@given(st.integers(0, 9), st.sampled_from([REQUEST, RESPONSE, DATA]), st.binary(max_size=64))
def test_garbage_in_well_formed_messages_gives_events_or_a_protocol_error(
    stream_id: int, kind: int, payload: bytes
) -> None:
    server, client = Server(), Client()
    client.send_request("svc", "A", b"", 1)
    for role in (server, client):
        with contextlib.suppress(ProtocolError):
            role.feed(message(stream_id, kind, payload))
