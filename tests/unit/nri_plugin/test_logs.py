"""Log lines: for people and for machines, with the container they are about."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nri_plugin import logs
from nri_plugin.config import Log
from nri_plugin.logs import LEVEL_VARIABLE, Subject, about

SUBJECT = Subject("default", "web", "u-1", "main", "0123456789abcdef" * 4)
log = logging.getLogger("nri_plugin.test")


@pytest.fixture(autouse=True)
def root_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As it was, afterwards; and no journal, whatever runs the tests."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_text_names_the_container_inside_about_and_only_there(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Log(), "worker")
    with about(SUBJECT):
        log.warning("it is %s", "late")
    log.info("idle")
    assert capsys.readouterr().err == "WARNING worker: default/web/main (0123456789ab): it is late\nINFO worker: idle\n"


def test_json_has_the_same_as_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Log(format="json"), "session")
    with about(SUBJECT):
        log.warning("no\n\x1b[2Jbreak \x9b \u202e")
    log.info("idle")
    first, second = objects(capsys)
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning",
        "process": "session",
        "message": "no\\n\\x1b[2Jbreak \\x9b \\u202e",
        "namespace": "default",
        "pod": "web",
        "pod_uid": "u-1",
        "container": "main",
        "container_id": SUBJECT.container_id,
    }
    assert set(second) == {"time", "level", "process", "message"}


def test_json_keeps_a_traceback_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Log(format="json"), "worker")
    try:
        raise KeyError("a defect")
    except KeyError:
        log.exception("it failed")
    (line,) = objects(capsys)
    assert line["traceback"].startswith("Traceback") and line["traceback"].endswith("KeyError: 'a defect'")


def test_threads_do_not_see_each_others_container(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Log(), "worker")
    with about(SUBJECT):
        other = threading.Thread(target=lambda: log.info("elsewhere"))
        other.start()
        other.join()
    assert capsys.readouterr().err == "INFO worker: elsewhere\n"


def test_level_is_the_configured_one_unless_the_command_line_says_another(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.configure(Log(level="error"), "worker")
    log.warning("not this")
    monkeypatch.setenv(LEVEL_VARIABLE, "debug")
    logs.configure(Log(level="error"), "worker")
    log.debug("but this")
    assert capsys.readouterr().err == "DEBUG worker: but this\n"


def test_journal_gets_the_priority_of_every_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1234")
    logs.configure(Log(), "worker")
    try:
        raise ValueError("a\x1b[2J")
    except ValueError:
        log.exception("first")
    log.info("third")
    first, *traceback, third = capsys.readouterr().err.splitlines()
    assert (first, third) == ("<3>ERROR worker: first", "<6>INFO worker: third")
    assert len(traceback) > 2
    assert all(line.startswith("<3>") and line.isprintable() for line in traceback)


def test_message_of_a_checkpoint_makes_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Log(), "worker")
    log.warning("%s", "bad\nERROR worker: forged \x1b]0;title\x07" + "a" * 100_000)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(r"WARNING worker: bad\nERROR worker: forged \x1b]0;title\x07aaa")
    assert len(line) < 5000
