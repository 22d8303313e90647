"""Serves the metrics over HTTP/1.1: on a unix socket that only root can reach, and on a port of 127.0.0.1 if wanted."""

from __future__ import annotations

import asyncio
import logging
import socket as sockets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from nri_plugin.metrics import CONTENT_TYPE

log = logging.getLogger(__name__)

SOCKET: Final = "metrics.sock"
"""Among the plans."""
REQUEST_LIMIT_BYTES: Final = 8 << 10
REQUEST_S: Final = 5.0


def ask(plans: Path) -> str:
    """What the daemon whose plans these are answers, headers included; raises OSError within REQUEST_S seconds."""
    with sockets.socket(sockets.AF_UNIX) as client:
        client.settimeout(REQUEST_S)
        client.connect(str(plans / SOCKET))
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        with client.makefile("rb") as answer:
            return answer.read().decode(errors="replace")


def hears_of_containers(answer: str) -> bool:
    """Whether the runtime tells the daemon that answered so of its containers."""
    return "\nnri_restore_nri_connected 1\n" in answer


@asynccontextmanager
async def served(plans: Path, port: int, render: Callable[[], str]) -> AsyncIterator[None]:
    """Inside, ``GET /metrics`` is answered; what cannot be listened on is logged: restores matter more."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                writer.write(respond(await reader.readuntil(b"\r\n\r\n"), render))
                await writer.drain()
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    socket = plans / SOCKET
    servers = []
    try:
        try:
            servers.append(await asyncio.start_unix_server(answer, socket, limit=REQUEST_LIMIT_BYTES))
            socket.chmod(0o600)
            if port:
                servers.append(await asyncio.start_server(answer, "127.0.0.1", port, limit=REQUEST_LIMIT_BYTES))
        except OSError as error:
            log.error("metrics cannot be served: %s", error)
        yield
    finally:
        for each in servers:
            each.close()
        with suppress(OSError):
            socket.unlink()


def respond(head: bytes, render: Callable[[], str]) -> bytes:
    """The answer to a request's head; the connection ends after it."""
    words = head.split(b"\r\n", 1)[0].split(b" ")
    path = words[1].split(b"?")[0] if len(words) == 3 else b""
    if words[0] == b"GET" and path == b"/metrics":
        return _response("200 OK", CONTENT_TYPE, render())
    return _response("404 Not Found", "text/plain", "GET /metrics is all there is\n")


def _response(status: str, kind: str, text: str) -> bytes:
    body = text.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
