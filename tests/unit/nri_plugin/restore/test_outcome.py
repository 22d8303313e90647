"""What a plan directory says about how its restore ended."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from nri_plugin.restore.outcome import Outcome, outcome_of, state_of
from nri_plugin.restore.plan import Plan

CASES: dict[str, tuple[dict[str, str], str, Outcome | None]] = {
    "being prepared": ({}, "preparing", None),
    "prepared": ({"status": "ok\n"}, "ready", None),
    "being restored": ({"status": "ok\n", "restoring": "1"}, "restoring", None),
    "stopped before": ({"status": "ok\n", "cancelled": ""}, "cancelled", None),
    "ordinary": ({"status": "plain\n", "report": '{"outcome": "plain"}'}, "ordinary", None),
    "not reported yet": ({"status": "plain\n"}, "ordinary", None),
    "report cut short": ({"status": "plain\n", "report": '{"outco'}, "ordinary", None),
    "refused": (
        {"status": "refused MountMissing: add it: here\n"},
        "refused",
        Outcome("refused", "MountMissing", "add it: here"),
    ),
    "failed": (
        {"status": "ok\n", "restoring": "1", "failed": "", "why": "CriuFailed: no such device"},
        "failed",
        Outcome("failed", "CriuFailed", "no such device"),
    ),
    "failed before anything was restored": (
        {"status": "ok\n", "why": "MountFailed: it cannot be mounted"},
        "failed",
        Outcome("failed", "MountFailed", "it cannot be mounted"),
    ),
    "failed without a code": ({"status": "ok\n", "why": "what?"}, "failed", Outcome("failed", "Unknown", "what?")),
    "started in place of a failed restore": (
        {"status": "ok\n", "failed": "", "why": "CriuFailed: x", "start-on-failure": ""},
        "started",
        Outcome("started", "CriuFailed", "x"),
    ),
    "failed, and being undone before the container starts": (
        {"status": "ok\n", "restoring": "1", "why": "CriuFailed: x", "start-on-failure": ""},
        "restoring",
        None,
    ),
    "failed, and the reason is just being written": (
        {"status": "ok\n", "restoring": "1", "why": ""},
        "restoring",
        None,
    ),
    "stopped in place of a failed restore": (
        {"status": "ok\n", "failed": "", "why": "Cancelled: x", "start-on-failure": ""},
        "cancelled",
        None,
    ),
    "left to restore-runc": ({"status": "undecided Unavailable: x\n"}, "ordinary", None),
    "refused by restore-runc itself": (
        {"status": "undecided Unavailable: x\n", "why": "Unavailable: x"},
        "failed",
        Outcome("failed", "Unavailable", "x"),
    ),
    "stopped while it was prepared": ({"status": "refused Cancelled: x\n"}, "cancelled", None),
    "started in place of a refused restore": (
        {
            "status": "plain\n",
            "report": json.dumps(
                {"outcome": "started afresh, restore refused", "reason": "TtyDiffers", "sentence": "x"}
            ),
        },
        "started",
        Outcome("started", "TtyDiffers", "x"),
    ),
    "started because the pod wants that": (
        {"status": "plain\n", "report": json.dumps({"outcome": "started afresh", "reason": "", "sentence": ""})},
        "started",
        Outcome("started"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_outcome(planned: Callable[..., Plan], case: str) -> None:
    files, state, outcome = CASES[case]
    plan = planned("a")
    for name, text in files.items():
        plan.write(name, text)
    assert (state_of(plan), outcome_of(plan)) == (state, outcome)


def test_restore_that_was_killed_has_failed(planned: Callable[..., Plan]) -> None:
    plan = planned("a")
    for name in ("restoring", "failed"):
        plan.write(name, "")
    plan.write("status", "ok\n")
    outcome = outcome_of(plan)
    assert outcome is not None
    assert (outcome.result, outcome.reason) == ("failed", "RestoreInterrupted")


def test_restore_took_from_its_begin_to_the_pid(planned: Callable[..., Plan]) -> None:
    plan = planned("a")
    for name, text, at in (("status", "ok\n", 5), ("restoring", "1", 10), ("restored", "77", 10.25)):
        plan.write(name, text)
        os.utime(plan.path / name, (at, at))
    assert outcome_of(plan) == Outcome("restored", restore_s=0.25)


def test_reason_with_a_name_that_is_no_utf_8_is_read(planned: Callable[..., Plan]) -> None:
    plan = planned("a")
    plan.write("status", "ok\n")
    plan.write("why", b"CriuFailed: no file \xff\xfe")
    assert outcome_of(plan) == Outcome("failed", "CriuFailed", "no file \ufffd\ufffd")
