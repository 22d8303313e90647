from __future__ import annotations

import asyncio

import pytest

from nri_plugin.nri.tasks import OrderedTasks


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.failures: list[tuple[str, str]] = []
        self.tasks = OrderedTasks(lambda name, error: self.failures.append((name, str(error))))

    def start(self, key: str, name: str, seconds: float = 0, error: Exception | None = None) -> asyncio.Task[None]:
        async def work() -> None:
            await asyncio.sleep(seconds)
            if error is not None:
                raise error
            self.lines.append(name)

        return self.tasks.start(key, name, work)


def test_one_keys_tasks_run_in_order_and_other_keys_do_not_wait() -> None:
    async def run() -> list[str]:
        log = Log()
        log.start("a", "a1", 0.05)
        log.start("a", "a2")
        log.start("b", "b1")
        await log.tasks.finish(5)
        return log.lines

    assert asyncio.run(run()) == ["b1", "a1", "a2"]


def test_a_failure_is_told_and_the_next_one_runs() -> None:
    async def run() -> Log:
        log = Log()
        log.start("a", "a1", error=RuntimeError("broken"))
        log.start("a", "a2")
        await log.tasks.finish(5)
        return log

    log = asyncio.run(run())
    assert log.failures == [("a1", "broken")]
    assert log.lines == ["a2"]


def test_a_cancelled_one_lets_the_next_one_run() -> None:
    async def run() -> Log:
        log = Log()
        first = log.start("a", "a1", 30)
        log.start("a", "a2")
        await asyncio.sleep(0)
        first.cancel()
        await log.tasks.finish(5)
        return log

    assert asyncio.run(run()).lines == ["a2"]


def test_finish_cancels_what_takes_longer() -> None:
    async def run() -> Log:
        log = Log()
        task = log.start("a", "a1", 30)
        log.start("a", "a2")
        await log.tasks.finish(0.02)
        with pytest.raises(asyncio.CancelledError):
            await task
        return log

    assert asyncio.run(run()).lines == []


def test_what_has_ended_is_forgotten() -> None:
    async def run() -> Log:
        log = Log()
        for n in range(100):
            log.start(f"key {n}", "work")
        await log.tasks.finish(5)
        await asyncio.sleep(0)
        return log

    tasks = asyncio.run(run()).tasks
    assert not tasks._last
    assert not tasks._running
