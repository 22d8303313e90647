"""Listing and showing the restores of a node."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nri_plugin import listing
from nri_plugin.cli import app
from nri_plugin.config import Config
from nri_plugin.restore.plan import Plan
from nri_plugin.restore.settled import Settled
from shared.errors import RestoreError

A, B = "a" * 64, "b" * 64


@pytest.fixture
def command(config: Config, tmp_path: Path) -> Callable[..., Result]:
    file = tmp_path / "config.toml"
    paths = config.paths
    file.write_text(f"[paths]\nplans = '{paths.plans}'\nstate = '{paths.state}'\nlogs = '{paths.logs}'\n")
    return lambda *words: CliRunner().invoke(app, [*words, "--config", str(file)], catch_exceptions=False)


@pytest.fixture
def failed(planned: Callable[..., Plan], config: Config) -> Plan:
    """A failed restore with everything that is left of one."""
    plan = planned("a", checkpoint="registry.example/counter:1")
    report = {"phases": {"view": 0.004}, "warnings": ["the mount /cache is gone", "CriuFailed: no such device"]}
    files = {"status": "ok\n", "restoring": "1", "failed": "", "why": "CriuFailed: no such device"}
    for name, text in {**files, "report": json.dumps(report)}.items():
        plan.write(name, text)
    (plan.path / "work").mkdir()
    (plan.path / "work/restore.log").write_text("".join(f"line {number}\n" for number in range(100)) + "\x1b[2Jend\n")
    Settled(config, threading.Lock(), lambda *_: None).look_at_all()
    return plan


def gone(config: Config, plan: Plan) -> None:
    """As restore-runc and the removal of the container leave it."""
    kept = config.paths.logs / "default_web_uid/main/0/restore.log"
    kept.write_bytes((plan.path / "work/restore.log").read_bytes())
    plan.path.rename(config.paths.logs.parent / "elsewhere")


def test_list_says_what_kubectl_get_would(
    command: Callable[..., Result], planned: Callable[..., Plan], failed: Plan
) -> None:
    os.utime(failed.path / "request", (1, time.time() - 125))
    planned("b", pod_name="other")
    planned("c", by_default=True).write("status", "plain\n")
    lines = [line.split() for line in command("list").stdout.splitlines()]
    assert lines == [
        ["CONTAINER", "POD", "NAME", "STATE", "REASON", "AGE", "IMAGE"],
        [A[:13], "default/web", "main", "failed", "CriuFailed", "2m", "registry.example/counter:1"],
        [B[:13], "default/other", "main", "preparing", "-", "0s", "registry.example/web:1"],
    ]
    assert command("list", "-o", "wide").stdout.splitlines()[1].endswith("no such device")
    assert [each["state"] for each in json.loads(command("list", "-o", "json").stdout)] == ["failed", "preparing"]


def test_list_all_has_failures_of_containers_that_are_gone(
    command: Callable[..., Result], config: Config, failed: Plan
) -> None:
    gone(config, failed)
    assert command("list").stdout == ""
    assert A[:13] in command("list", "-a").stdout
    (record,) = json.loads(command("list", "-a", "-o", "json").stdout)
    assert (record["state"], record["plan"]) == ("failed", None)


@pytest.mark.parametrize("there", [True, False])
def test_show_has_phases_reason_warnings_paths_and_the_logs_end(
    command: Callable[..., Result], config: Config, failed: Plan, there: bool
) -> None:
    if not there:
        gone(config, failed)
    said = command("show", A[:4]).stdout
    assert f"Container: {A}\n" in said
    assert "Reason:    CriuFailed: no such device\n" in said
    assert "  view            4 ms\n" in said
    assert "Warnings:\n  the mount /cache is gone\nLog:" in said
    log = failed.path / "work/restore.log" if there else config.paths.logs / "default_web_uid/main/0/restore.log"
    assert f"Log:       {log}, its end:\n  line 81\n" in said
    assert said.endswith("  line 99\n  \\x1b[2Jend\n")
    shown = json.loads(command("show", A[:4], "-o", "json").stdout)
    assert (shown["log"], len(shown["logTail"]), shown["reason"]) == (str(log), listing.LOG_LINES, "CriuFailed")


def test_id_must_say_which(planned: Callable[..., Plan], config: Config, request_for: Callable[..., object]) -> None:
    planned("a")
    Plan(config.paths.plans, "a" * 40).create(request_for("a", container_id="a" * 40))  # type: ignore[arg-type]
    for prefix, reason in (("aa", "IdAmbiguous"), ("f", "IdUnknown"), ("", "IdUnknown")):
        with pytest.raises(RestoreError) as refused:
            listing.find(config, prefix)
        assert refused.value.reason == reason
    assert listing.find(config, A).container_id == A


def test_record_that_is_none_is_passed_over(config: Config, failed: Plan) -> None:
    (record,) = config.paths.logs.rglob("record.json")
    for text in ("{", "[]", "{}", '{"result": "failed"}'):
        record.write_text(text)
        assert [each.container_id for each in listing.entries(config, gone=True)] == [A]


def test_node_without_any_says_so(command: Callable[..., Result]) -> None:
    result = command("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no restores" in result.stderr


@pytest.mark.parametrize(("seconds", "said"), [(5, "5s"), (200, "3m"), (7300, "2h"), (400000, "4d")])
def test_age(seconds: int, said: str) -> None:
    assert listing.age(time.time() - seconds) == said
