from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from nri_plugin.nri.reconnect import run_forever
from nri_plugin.nri.session import Session
from nri_plugin.nri.versions import Runtime
from shared.errors import RestoreError, Unavailable
from tests.unit.nri_plugin.nri.fake_runtime import FakeRuntime, Plugin, handshake
from tests.unit.nri_plugin.nri.test_session import Recorder, until

RUNTIME = Runtime("containerd", "v2.1.0", (0, 8, 0))


class Clock:
    """Stands in for time and for the session: each attempt has a given outcome, and waits take no real time."""

    def __init__(self, *outcomes: RestoreError | float) -> None:
        """An outcome is what the attempt raises, or for how many seconds the connection held."""
        self.outcomes = list(outcomes)
        self.waits: list[float] = []
        self.now = 0.0
        self.closing = False

    async def run_once(self, on_ready: Callable[[Runtime], None]) -> None:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, RestoreError):
            raise outcome
        on_ready(RUNTIME)
        self.now += outcome

    async def wait_closing(self, timeout_s: float) -> None:
        self.waits.append(timeout_s)
        self.now += timeout_s
        self.closing = not self.outcomes

    def time(self) -> float:
        return self.now


def waits(monkeypatch: pytest.MonkeyPatch, *outcomes: RestoreError | float, jitter: float = 0.0) -> list[float]:
    clock = Clock(*outcomes)

    async def run() -> None:
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
        try:
            await run_forever(clock, jitter=jitter)  # type: ignore[arg-type]
        finally:
            monkeypatch.undo()

    asyncio.run(run())
    return clock.waits


def lost() -> RestoreError:
    return Unavailable("NriLost", "lost")


def unreachable() -> RestoreError:
    return Unavailable("NriUnreachable", "nobody there")


def test_each_lost_connection_doubles_the_wait_up_to_the_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waits(monkeypatch, *[lost() for _ in range(8)]) == [1, 2, 4, 8, 16, 32, 60, 60]


def test_connections_that_were_ready_but_short_double_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waits(monkeypatch, 5.0, 5.0, 5.0) == [1, 2, 4]


def test_a_connection_that_held_starts_over(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waits(monkeypatch, lost(), lost(), lost(), 61.0, lost()) == [1, 2, 4, 1, 2]


def test_a_runtime_that_is_down_is_looked_for_often_and_starts_over(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = [lost(), lost(), *[unreachable() for _ in range(4)], lost(), lost()]
    assert waits(monkeypatch, *outcomes) == [1, 2, 1, 1, 1, 1, 1, 2]


def test_waits_are_jittered_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    result = waits(monkeypatch, *[unreachable() for _ in range(200)], jitter=0.3)
    assert 0.7 <= min(result) < 0.8
    assert 1.2 < max(result) <= 1.3


def test_it_reconnects_after_the_runtime_restarts_and_tells(socket_path: Path) -> None:
    told: list[str] = []

    async def run() -> None:
        handler = Recorder()
        session = Session(socket_path, "restore", "50", handler)
        running = asyncio.create_task(
            run_forever(
                session,
                first_backoff_s=0.02,
                on_connected=lambda runtime: told.append(f"connected {runtime.version}"),
                on_lost=lambda error: told.append(error.reason if error else "ended"),
            )
        )
        await until(lambda: told.count("NriUnreachable") >= 2)  # the socket is not there yet
        for _ in range(2):
            told.clear()
            async with FakeRuntime(socket_path, handshake):
                await until(lambda: "connected 1.7.24~ds1" in told)
                await until(lambda: session.ready)
            await until(lambda: "ended" in told)
            assert not session.ready
        assert handler.heard == ["synchronize 0 0"] * 2
        await session.close()
        async with asyncio.timeout(5):
            await running

    asyncio.run(run())


def test_being_thrown_out_is_told_and_mended(socket_path: Path) -> None:
    told: list[str] = []

    async def serve(plugin: Plugin) -> None:
        await handshake(plugin)
        if len(told) < 2:
            plugin.writer.close()

    async def run() -> None:
        session = Session(socket_path, "restore", "50", Recorder())
        async with FakeRuntime(socket_path, serve):
            running = asyncio.create_task(
                run_forever(
                    session,
                    first_backoff_s=0.01,
                    on_connected=lambda _: told.append("connected"),
                    on_lost=lambda error: told.append(error.reason if error else "ended"),
                )
            )
            await until(lambda: told == ["connected", "ended", "connected"] and session.ready)
            await session.close()
            async with asyncio.timeout(5):
                await running
        assert told == ["connected", "ended", "connected"]

    asyncio.run(run())


def test_close_ends_a_wait_at_once(socket_path: Path) -> None:
    async def run() -> None:
        session = Session(socket_path, "restore", "50", Recorder())
        lost: list[RestoreError | None] = []
        running = asyncio.create_task(run_forever(session, first_backoff_s=3600, on_lost=lost.append))
        await until(lambda: len(lost) == 1)
        await session.close()
        async with asyncio.timeout(1):
            await running

    asyncio.run(run())
