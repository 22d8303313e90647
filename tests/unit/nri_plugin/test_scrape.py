"""Serving the metrics: over the unix socket and the port, bounded, and never in the daemon's way."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from nri_plugin import scrape
from nri_plugin.scrape import SOCKET, served


def with_server(plans: Path, test: Callable[[], Awaitable[bytes]], port: int = 0) -> bytes:
    async def run() -> bytes:
        async with served(plans, port, lambda: "the metrics\n"):
            return await asyncio.wait_for(test(), 60)

    return asyncio.run(run())


async def asked(plans: Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(plans / SOCKET)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


def test_metrics_are_answered_on_a_socket_that_only_its_owner_can_reach(tmp_path: Path) -> None:
    async def test() -> bytes:
        assert stat.S_IMODE((tmp_path / SOCKET).stat().st_mode) == 0o600
        return await asked(tmp_path, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")

    head, _, body = with_server(tmp_path, test).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")
    assert body == b"the metrics\n"
    assert not (tmp_path / SOCKET).exists()


def test_port_answers_too(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def test() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer

    assert with_server(tmp_path, test, port).endswith(b"the metrics\n")


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1", b"POST /metrics HTTP/1.1", b"nonsense", b""])
def test_nothing_else_is_there(tmp_path: Path, request_line: bytes) -> None:
    answer = with_server(tmp_path, lambda: asked(tmp_path, request_line + b"\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 404 ")


def test_head_without_end_is_not_kept(tmp_path: Path) -> None:
    assert with_server(tmp_path, lambda: asked(tmp_path, b"x" * (scrape.REQUEST_LIMIT_BYTES * 3))) == b""


def test_client_that_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "REQUEST_S", 0.05)
    assert with_server(tmp_path, lambda: asked(tmp_path, b"")) == b""


def test_socket_of_a_daemon_that_was_killed_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / SOCKET))
    assert b"the metrics" in with_server(tmp_path, lambda: asked(tmp_path, b"GET /metrics HTTP/1.1\r\n\r\n"))


def test_port_that_is_taken_costs_only_the_metrics(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with_server(tmp_path, lambda: asyncio.sleep(0, b""), taken.getsockname()[1])
    assert "metrics cannot be served" in caplog.text
