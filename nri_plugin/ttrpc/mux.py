"""NRI's multiplexer, sans-I/O: several byte streams over one socket.

A frame is ``connection id u32 BE | length u32 BE | payload`` (containerd/nri ``pkg/net/multiplex/mux.go``). There is no
opening, closing or flow control of a connection. How a stream is cut into frames means nothing to the receiver here;
it means much to the Go side, see ``frames``.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from typing import Final

from nri_plugin.ttrpc.errors import ProtocolError

PLUGIN_SERVICE: Final = 1
"""Connection on which the runtime calls the plugin (nri ``multiplex.PluginServiceConn``)."""
RUNTIME_SERVICE: Final = 2
"""Connection on which the plugin calls the runtime (nri ``multiplex.RuntimeServiceConn``)."""

# NRI 0.6.1 and older send frames up to 1 << 24 bytes, newer ones up to one ttrpc message (mux.go maxPayloadSize).
MAX_FRAME_BYTES: Final = 1 << 24

_HEADER: Final = struct.Struct(">II")


class Demultiplexer:
    """Turns what the socket delivers into pieces of the connections' streams; holds back less than one header."""

    __slots__ = ("_connection", "_connections", "_header", "_missing")

    def __init__(self, connections: Collection[int] = (PLUGIN_SERVICE, RUNTIME_SERVICE)) -> None:
        self._connections = connections
        self._header = b""
        self._connection = 0
        self._missing = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Returns ``(connection id, piece)`` in order of arrival; unknown connections are dropped, as Go does.

        Raises ProtocolError for a frame over MAX_FRAME_BYTES.
        """
        pieces: list[tuple[int, bytes]] = []
        if self._header:
            data = self._header + data
            self._header = b""
        position, end = 0, len(data)
        while position < end:
            if not self._missing:
                if end - position < _HEADER.size:
                    self._header = data[position:]
                    break
                self._connection, self._missing = _HEADER.unpack_from(data, position)
                position += _HEADER.size
                if self._missing > MAX_FRAME_BYTES:
                    raise ProtocolError(
                        f"the runtime announced a frame of {self._missing} bytes; NRI allows {MAX_FRAME_BYTES}"
                    )
                continue
            piece = data[position : position + self._missing]
            position += len(piece)
            self._missing -= len(piece)
            if self._connection in self._connections:
                pieces.append((self._connection, piece))
        return pieces


def frames(connection: int, chunks: Iterable[bytes]) -> bytes:
    """Wraps each chunk into one frame of its own; chunks are a message's header and its payload, never both in one.

    Go reads each connection through a bufio.Reader of 4096 bytes, and its mux fails the read, silently ending the
    connection, when a frame is larger than the buffer that read offers (mux.go ``conn.Read``, ENOMEM). A 10-byte header
    always fits, and after it Go reads the payload into a buffer of its exact size, so a payload frame always fits too.
    """
    parts: list[bytes] = []
    for chunk in chunks:
        parts.append(_HEADER.pack(connection, len(chunk)))
        parts.append(chunk)
    return b"".join(parts)
