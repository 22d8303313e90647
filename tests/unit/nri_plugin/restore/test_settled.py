"""Every restore is told of once, whoever was there when it ended."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nri_plugin.config import Config, Paths
from nri_plugin.restore.outcome import Outcome
from nri_plugin.restore.plan import Plan
from nri_plugin.restore.settled import Settled


@pytest.fixture
def told() -> list[tuple[str, str, str]]:
    return []


@pytest.fixture
def settled(config: Config, told: list[tuple[str, str, str]]) -> Callable[[], Settled]:
    def tell(plan: Plan, request: object, outcome: Outcome) -> None:
        told.append((plan.container_id[0], outcome.result, outcome.reason))

    return lambda: Settled(config, threading.Lock(), tell)


def test_news_is_told_once_also_by_a_new_worker(
    planned: Callable[..., Plan], settled: Callable[[], Settled], told: list[tuple[str, str, str]]
) -> None:
    restored, under_way, refused = planned("a"), planned("b"), planned("c")
    for plan in (restored, under_way):
        plan.write("status", "ok\n")
    restored.write("restored", "1")
    refused.write("status", "refused TtyDiffers: x\n")
    first = settled()
    first.look_at_all()
    assert sorted(told) == [("a", "restored", ""), ("c", "refused", "TtyDiffers")]
    assert first.states == {"restored": 1, "ready": 1, "refused": 1}
    assert first.oldest_s == 0
    first.look(restored)
    under_way.write("restored", "1")
    settled().look_at_all()
    assert sorted(told) == [("a", "restored", ""), ("b", "restored", ""), ("c", "refused", "TtyDiffers")]


def test_the_oldest_that_is_under_way_is_told(planned: Callable[..., Plan], settled: Callable[[], Settled]) -> None:
    for letter, age_s, files in (("a", 500, {}), ("b", 100, {}), ("c", 900, {"status": "ok\n", "restored": "1"})):
        plan = planned(letter)
        for name, text in files.items():
            plan.write(name, text)
        os.utime(plan.path / "request", (1, time.time() - age_s))
    looking = settled()
    looking.look_at_all()
    assert 500 <= looking.oldest_s < 600


def test_what_went_wrong_is_kept_beside_the_logs_and_nothing_else(
    planned: Callable[..., Plan], settled: Callable[[], Settled], config: Config
) -> None:
    failed, restored = planned("a", container_name="main"), planned("b", container_name="other")
    failed.write("report", '{"phases": {"view": 0.5}}')
    for plan, name, text in ((failed, "why", "CriuFailed: x"), (restored, "restored", "1")):
        plan.write("status", "ok\n")
        plan.write(name, text)
    settled().look_at_all()
    (record,) = config.paths.logs.rglob("*.json")
    assert record == config.paths.logs / "default_web_uid/main/0/record.json"
    assert record.stat().st_mode & 0o777 == 0o600
    assert record.parent.stat().st_mode & 0o777 == 0o700
    kept = json.loads(record.read_text())
    assert (kept["container_id"], kept["result"], kept["reason"]) == ("a" * 64, "failed", "CriuFailed")
    assert kept["report"] == {"phases": {"view": 0.5}}


def test_logs_that_cannot_be_written_keep_nothing_from_being_told(
    planned: Callable[..., Plan], config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    told: list[Outcome] = []
    nowhere = Config(paths=Paths(config.paths.plans, config.paths.state, tmp_path / "file/logs"))
    planned("a").write("status", "refused TtyDiffers: x\n")
    Settled(nowhere, threading.Lock(), lambda plan, request, outcome: told.append(outcome)).look_at_all()
    assert told == [Outcome("refused", "TtyDiffers", "x")]
    assert "cannot be written" in caplog.text
