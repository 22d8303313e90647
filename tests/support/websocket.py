"""The server's side of a WebSocket (RFC 6455), as far as exec through an API server needs it."""

from __future__ import annotations

import base64
import hashlib
import struct
import threading
from typing import BinaryIO, Final

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def accept_key(key: str) -> str:
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


class WebSocket:
    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader = reader
        self._writer = writer
        self._writing = threading.Lock()

    def send(self, payload: bytes, opcode: int = BINARY) -> None:
        size = len(payload)
        if size < 126:
            head = struct.pack(">BB", 0x80 | opcode, size)
        elif size < 1 << 16:
            head = struct.pack(">BBH", 0x80 | opcode, 126, size)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, 127, size)
        with self._writing:
            self._writer.write(head + payload)
            self._writer.flush()

    def receive(self) -> bytes | None:
        """The next message's payload; None when the other side closed or vanished."""
        message = b""
        while True:
            head = self._reader.read(2)
            if len(head) < 2:
                return None
            final, opcode, size = head[0] & 0x80, head[0] & 0x0F, head[1] & 0x7F
            if size == 126:
                size = struct.unpack(">H", self._reader.read(2))[0]
            elif size == 127:
                size = struct.unpack(">Q", self._reader.read(8))[0]
            mask = self._reader.read(4) if head[1] & 0x80 else bytes(4)
            body = self._reader.read(size)
            payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(body))
            if opcode == CLOSE:
                return None
            if opcode == PING:
                self.send(payload, PONG)
            elif opcode != PONG:
                message += payload
                if final:
                    return message

    def close(self, code: int = 1000) -> None:
        self.send(struct.pack(">H", code), CLOSE)
