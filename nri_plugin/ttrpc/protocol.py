"""ttrpc, sans-I/O, unary calls only: the server's and the client's side of one connection.

A message is ``length u32 BE | stream id u32 BE | type u8 | flags u8 | payload`` (containerd/ttrpc ``channel.go``).
Bytes go in through ``feed``, which returns events; ``chunks_to_send`` gives what to send, each chunk for one mux frame.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from google.protobuf.message import DecodeError

from nri_plugin.ttrpc.errors import MessageTooLarge, ProtocolError
from nri_plugin.ttrpc.ttrpc_pb2 import Request, Response, Status

MAX_MESSAGE_BYTES: Final = 4 << 20
"""Both ways, without the header (ttrpc ``messageLengthMax``)."""
MAX_ERROR_CHARACTERS: Final = 4096
"""An error's text is cut here: it ends in CRI errors and events, which nobody reads at megabytes."""

_HEADER: Final = struct.Struct(">IIBB")
_REQUEST: Final = 1
_RESPONSE: Final = 2


class Code(IntEnum):
    """The status codes used here (google/rpc/code.proto); a peer may send any other number."""

    OK = 0
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A call by the peer; ``timeout_s`` is what the caller grants from now on, 0 when it names no limit."""

    stream_id: int
    service: str
    method: str
    payload: bytes
    timeout_s: float


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """The answer to a call of ours; ``code`` 0 is success, else ``error`` is the peer's text."""

    stream_id: int
    code: int
    error: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Message:
    stream_id: int
    type: int
    payload: bytes
    oversize_bytes: int = 0
    """Size of a message over the limit, whose payload was thrown away; 0 for every other."""


class _Reassembly:
    """Cuts one connection's byte stream into messages; a message over the limit is skipped, not stored."""

    __slots__ = ("_buffer", "_skip", "_skipped")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0
        self._skipped: _Message | None = None

    def feed(self, data: bytes) -> list[_Message]:
        messages: list[_Message] = []
        buffer = self._buffer
        buffer += data
        position = 0
        while True:
            if self._skipped is not None:
                dropped = min(self._skip, len(buffer) - position)
                position += dropped
                self._skip -= dropped
                if self._skip:
                    break
                messages.append(self._skipped)
                self._skipped = None
            if len(buffer) - position < _HEADER.size:
                break
            length, stream_id, kind, _flags = _HEADER.unpack_from(buffer, position)
            if length > MAX_MESSAGE_BYTES:
                position += _HEADER.size
                self._skip, self._skipped = length, _Message(stream_id, kind, b"", length)
                continue
            end = position + _HEADER.size + length
            if len(buffer) < end:
                break
            messages.append(_Message(stream_id, kind, bytes(buffer[position + _HEADER.size : end])))
            position = end
        del buffer[:position]
        return messages


def _message(stream_id: int, kind: int, payload: bytes) -> tuple[bytes, ...]:
    header = _HEADER.pack(len(payload), stream_id, kind, 0)
    return (header, payload) if payload else (header,)


class Server:
    """The side that is called. Every RequestReceived is to be answered once, in any order."""

    def __init__(self) -> None:
        self._incoming = _Reassembly()
        self._outgoing: list[bytes] = []
        self._last_stream_id = 0
        self._open: set[int] = set()

    def feed(self, data: bytes) -> list[RequestReceived]:
        """Returns the complete calls in ``data``.

        Messages of other types than Request are ignored, as Go does. A call over the limit is answered with
        RESOURCE_EXHAUSTED right here. Raises ProtocolError for an even or non-increasing stream id and for an
        envelope that is no Request.
        """
        events: list[RequestReceived] = []
        for message in self._incoming.feed(data):
            if message.type != _REQUEST:
                continue
            stream_id = message.stream_id
            if stream_id % 2 == 0 or stream_id <= self._last_stream_id:
                raise ProtocolError(
                    f"the runtime opened stream {stream_id} after {self._last_stream_id}; ids must be odd and increase"
                )
            self._last_stream_id = stream_id
            self._open.add(stream_id)
            if message.oversize_bytes:
                self.send_error(stream_id, Code.RESOURCE_EXHAUSTED, _over_limit("request", message.oversize_bytes))
                continue
            try:
                request = Request.FromString(message.payload)
            except DecodeError as error:
                raise ProtocolError(f"the runtime's message on stream {stream_id} is not a ttrpc request") from error
            events.append(
                RequestReceived(
                    stream_id,
                    request.service,
                    request.method,
                    request.payload,
                    max(0, request.timeout_nano) / 1e9,
                )
            )
        return events

    def send_response(self, stream_id: int, payload: bytes) -> None:
        """Answers a call; an answer over the limit is sent as a RESOURCE_EXHAUSTED error in its place."""
        self._close(stream_id)
        message = Response(payload=payload).SerializeToString() if payload else b""
        if len(message) > MAX_MESSAGE_BYTES:
            message = _error(Code.RESOURCE_EXHAUSTED, _over_limit("response", len(message)))
        self._outgoing += _message(stream_id, _RESPONSE, message)

    def send_error(self, stream_id: int, code: int, text: str) -> None:
        """Answers a call with a status other than OK; ``text`` may hold anything and is made safe to send."""
        self._close(stream_id)
        self._outgoing += _message(stream_id, _RESPONSE, _error(code, text))

    def chunks_to_send(self) -> list[bytes]:
        """Returns, once, what to send: a header or a payload each."""
        chunks, self._outgoing = self._outgoing, []
        return chunks

    def _close(self, stream_id: int) -> None:
        if stream_id not in self._open:
            raise ProtocolError(f"stream {stream_id} is not waiting for an answer")
        self._open.remove(stream_id)


class Client:
    """The side that calls."""

    def __init__(self) -> None:
        self._incoming = _Reassembly()
        self._outgoing: list[bytes] = []
        self._next_stream_id = 1
        self._waiting: set[int] = set()

    def send_request(self, service: str, method: str, payload: bytes, timeout_s: float) -> int:
        """Sends a call and returns its stream id; over the limit it raises MessageTooLarge and sends nothing."""
        message = Request(
            service=service, method=method, payload=payload, timeout_nano=int(timeout_s * 1e9)
        ).SerializeToString()
        if len(message) > MAX_MESSAGE_BYTES:
            raise MessageTooLarge(len(message), MAX_MESSAGE_BYTES)
        stream_id = self._next_stream_id
        self._next_stream_id += 2
        self._waiting.add(stream_id)
        self._outgoing += _message(stream_id, _REQUEST, message)
        return stream_id

    def feed(self, data: bytes) -> list[ResponseReceived]:
        """Returns the complete answers in ``data``; other message types and answers nobody waits for are dropped.

        Raises ProtocolError for an envelope that is no Response.
        """
        events: list[ResponseReceived] = []
        for message in self._incoming.feed(data):
            stream_id = message.stream_id
            if message.type != _RESPONSE or stream_id not in self._waiting:
                continue
            self._waiting.remove(stream_id)
            if message.oversize_bytes:
                text = _over_limit("response", message.oversize_bytes)
                events.append(ResponseReceived(stream_id, Code.RESOURCE_EXHAUSTED, text, b""))
                continue
            try:
                response = Response.FromString(message.payload)
            except DecodeError as error:
                raise ProtocolError(f"the runtime's message on stream {stream_id} is not a ttrpc response") from error
            status = response.status
            text = status.message.decode(errors="replace") if status.code else ""
            events.append(ResponseReceived(stream_id, status.code, text, response.payload))
        return events

    def chunks_to_send(self) -> list[bytes]:
        """Returns, once, what to send: a header or a payload each."""
        chunks, self._outgoing = self._outgoing, []
        return chunks


def _error(code: int, text: str) -> bytes:
    return Response(status=Status(code=code, message=_sendable(text))).SerializeToString()


def _sendable(text: str) -> bytes:
    """One line of valid UTF-8: Go refuses a status whose message is not, and lone surrogates come from file names."""
    valid = text[:MAX_ERROR_CHARACTERS].encode(errors="replace").decode()
    return "".join(character if character.isprintable() else " " for character in valid).encode()


def _over_limit(what: str, size_bytes: int) -> str:
    return f"{what} of {size_bytes} bytes is over ttrpc's limit of {MAX_MESSAGE_BYTES}"
