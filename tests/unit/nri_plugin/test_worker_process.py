"""The session's side of the worker: answers, loss, silence, nonsense."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

import nri_plugin.worker_process
from nri_plugin.config import Config, Policy, read_document
from nri_plugin.metrics import Metrics
from nri_plugin.worker_process import WorkerProcess
from shared.errors import Refused, RestoreError

T = TypeVar("T")

FAKE = f"""#!{sys.executable}
import json, os, signal, socket, sys
from pathlib import Path
descriptor = int(sys.argv[-1])
log = Path(sys.argv[0]).with_name("jobs")
channel = socket.socket(fileno=descriptor)
for line in channel.makefile("rb"):
    job = json.loads(line)
    if job["job"] == "ping":
        channel.sendall(b'{{"alive": true, "plans": {{}}, "oldest_s": 0.0}}\\n')
        continue
    if job["job"] == "configure":
        with log.with_name("configured").open("ab") as file:
            file.write(line)
        continue
    with log.open("ab") as file:
        file.write(line)
    if job["job"] != "prepare":
        continue
    container, does = job["request"]["container_id"], job["request"]["does"]
    if does == "die":
        os._exit(7)
    if does == "hang":
        os.kill(os.getpid(), signal.SIGSTOP)
    if does == "answer":
        answer = {{"container_id": container, "reason": None, "sentence": None}}
    elif does == "refuse":
        answer = {{"container_id": container, "reason": "MountMissing", "sentence": "add it"}}
    elif does == "silent":
        continue
    else:
        channel.sendall(does.encode() + b"\\n")
        continue
    channel.sendall(json.dumps(answer).encode() + b"\\n")
"""
"""A worker that does with each job what the job says."""


class Fake:
    def __init__(self, folder: Path) -> None:
        self.log = folder / "jobs"
        self.process = WorkerProcess(Config(), Metrics("1"))

    @property
    def jobs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    async def asks(self, does: str, container: str = "c1", timeout_s: float = 10) -> RestoreError | None:
        return await self.process.prepare({"container_id": container, "does": does}, container, timeout_s)

    async def up(self) -> None:
        while self.process.writer is None:
            await asyncio.sleep(0.002)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    program = tmp_path / "worker"
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setattr(nri_plugin.worker_process.sys, "executable", str(program))
    monkeypatch.setattr(nri_plugin.worker_process, "RESTART_DELAY_S", 0.01)
    return Fake(tmp_path)


def with_worker(fake: Fake, test: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs ``test`` while the worker is kept alive."""

    async def run() -> T:
        keeping = asyncio.create_task(fake.process.run())
        try:
            await fake.up()
            return await asyncio.wait_for(test(), 60)
        finally:
            assert not keeping.done(), keeping
            keeping.cancel()
            await asyncio.wait([keeping])

    return asyncio.run(run())


def test_answers_reach_the_container_they_are_for(fake: Fake) -> None:
    async def test() -> list[RestoreError | None]:
        return await asyncio.gather(
            fake.asks("answer", "c1"),
            fake.asks("refuse", "c2"),
            fake.asks("silent", "c3", 0.3),
            fake.asks("answer", "c4"),
        )

    first, second, third, fourth = with_worker(fake, test)
    assert (first, third, fourth) == (None, None, None)
    assert isinstance(second, Refused)
    assert (second.reason, second.sentence) == ("MountMissing", "add it")
    assert not fake.process.answers


@pytest.mark.parametrize("answered_before", [True, False])
def test_worker_that_hangs_is_replaced(fake: Fake, monkeypatch: pytest.MonkeyPatch, answered_before: bool) -> None:
    monkeypatch.setattr(nri_plugin.worker_process, "PING_S", 0.2)

    async def test() -> None:
        if answered_before:
            await fake.process.heard.wait()
        hung = fake.process.process
        lost = await fake.asks("hang")
        assert lost is not None
        assert lost.reason == "WorkerLost"
        await fake.up()
        assert fake.process.process is not hung
        assert await fake.asks("answer") is None

    with_worker(fake, test)


def test_answer_for_nobody_is_passed_over(fake: Fake) -> None:
    async def test() -> RestoreError | None:
        assert await fake.asks('{"container_id": "stranger", "reason": null}', timeout_s=0.2) is None
        return await fake.asks("refuse")

    assert with_worker(fake, test) is not None
    assert len(fake.jobs) == 2


def test_death_of_the_worker_is_an_error_at_once_and_another_begins(fake: Fake) -> None:
    async def test() -> None:
        before = fake.process.process
        waiting = asyncio.create_task(fake.asks("silent", "c1"))
        await asyncio.sleep(0)
        lost = await fake.asks("die", "c2")
        assert lost is not None
        assert lost.reason == "WorkerLost"
        other = await waiting
        assert other is not None
        assert other.reason == "WorkerLost"
        between = await fake.asks("answer", "c3")
        assert between is None or between.reason == "WorkerLost"
        await fake.up()
        assert fake.process.process is not before
        assert await fake.asks("refuse", "c4") is not None

    with_worker(fake, test)


@pytest.mark.parametrize(
    "nonsense",
    [
        "this is no JSON",
        "[]",
        "null",
        "{}",
        '{"container_id": 5, "reason": null}',
        '{"container_id": "c1"}',
        '{"container_id": "c1", "reason": 5, "sentence": "x"}',
        '{"container_id": "c1", "reason": "X"}',
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_nonsense_from_the_worker_costs_it_its_life_and_the_daemon_nothing(fake: Fake, nonsense: str) -> None:
    async def test() -> None:
        lost = await fake.asks(nonsense)
        assert lost is not None
        assert lost.reason == "WorkerLost"
        await asyncio.sleep(0)
        await fake.up()
        assert await fake.asks("answer", "c2") is None

    with_worker(fake, test)


def test_line_without_end_costs_the_worker_its_life(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nri_plugin.worker_process, "LINE_LIMIT_BYTES", 1000)

    async def test() -> RestoreError | None:
        return await fake.asks("x" * 5000)

    lost = with_worker(fake, test)
    assert lost is not None
    assert lost.reason == "WorkerLost"


def test_without_a_worker_the_answer_is_no_and_jobs_are_not_kept(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    lost = asyncio.run(fake.asks("answer"))
    assert lost is not None
    assert lost.reason == "WorkerLost"
    fake.process.send({"job": "remove", "container_id": "c1"})
    assert "no worker for the job remove" in caplog.text


@pytest.mark.parametrize("synchronized", [False, True])
def test_new_worker_begins_with_what_was_missed_once_the_runtime_was_there(fake: Fake, synchronized: bool) -> None:
    async def test() -> None:
        fake.process.reconciles = synchronized
        await fake.asks("die")
        await asyncio.sleep(0.05)
        await fake.up()
        await fake.asks("answer")

    with_worker(fake, test)
    assert [job["job"] for job in fake.jobs] == ["prepare", *(["reconcile"] if synchronized else []), "prepare"]
    # Of its own start, so that no plan made since then is taken for one left behind.
    assert [job["since"] for job in fake.jobs if job["job"] == "reconcile"] == [fake.process.started_at] * synchronized


def test_worker_that_dies_again_and_again_is_started_less_and_less_often(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    sleep = asyncio.sleep

    async def counted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(nri_plugin.worker_process.sys, "executable", "/bin/false")
    monkeypatch.setattr(nri_plugin.worker_process.asyncio, "sleep", counted)

    async def run() -> None:
        keeping = asyncio.create_task(fake.process.run())
        while len(waits) < 13:
            await sleep(0.01)
        keeping.cancel()
        await asyncio.wait([keeping])

    asyncio.run(run())
    assert waits[:4] == [0.01, 0.02, 0.04, 0.08]
    assert waits[11:13] == [10.0, 10.0]


def test_worker_ends_with_the_session(fake: Fake) -> None:
    async def test() -> int:
        process = fake.process.process
        assert process is not None
        return process.pid

    pid = with_worker(fake, test)
    assert not Path(f"/proc/{pid}").exists()


def test_every_worker_begins_with_the_configuration_in_force(fake: Fake) -> None:
    newer = Config(policy=Policy(namespaces=("batch",)))

    async def test() -> None:
        await fake.asks("answer")
        fake.process.configure(newer)
        await fake.asks("die")
        await asyncio.sleep(0)
        await fake.up()
        await fake.asks("answer")

    with_worker(fake, test)
    got = [json.loads(line)["config"] for line in fake.log.with_name("configured").read_text().splitlines()]
    assert [read_document(each, source="x") for each in got] == [Config(), newer, newer]
