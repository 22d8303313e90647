from __future__ import annotations

import json

import pytest

from kubectl_restore.run import phases as module
from kubectl_restore.run.phases import Events, Lines, Phase, Phases, shown


def work(phases: Phases) -> None:
    with phases.phase("push", "to x"):
        assert b"".join(phases.track("layer", 2048, iter([bytes(1024), bytes(1024)]))) == bytes(2048)
        phases.now("a\x1b thing")
        phases.now("a\x1b thing")
    phases.note("a note")
    with pytest.raises(KeyboardInterrupt), phases.phase("resume", "pod y"):
        raise KeyboardInterrupt


def test_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINES_EVERY_S", 0)
    with shown(["push", "resume"], as_json=False) as view:
        assert isinstance(view, Lines)
        work(Phases(view))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "push: to x"
    assert lines[1].startswith("push: 1 KiB of 2 KiB at ") and lines[2].startswith("push: 2 KiB of 2 KiB at ")
    assert lines[3] == "push: a\\x1b thing"
    assert lines[4].startswith("push: finished in 0.0 s, 2 KiB at ")
    assert lines[5:7] == ["a note", "resume: pod y"] and lines[7].startswith("resume: failed in ")


def test_events(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENTS_EVERY_S", 0)
    with shown(["push", "resume"], as_json=True) as view:
        assert isinstance(view, Events)
        work(Phases(view))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["event"] for each in events] == [
        *("started", "progress", "progress", "waiting", "finished", "note", "started", "failed"),
    ]
    assert (events[1]["bytes"], events[1]["totalBytes"], events[4]["bytes"]) == (1024, 2048, 2048)
    assert {each.get("phase") for each in events} == {"push", "resume", None}


def test_what_is_taken_up_again_counts_once() -> None:
    phases = Phases(Events())
    seen: list[Phase] = []
    phases.shown.moved = seen.append  # type: ignore[method-assign]
    with phases.phase("push", "to x"):
        list(phases.track("layer", 3, iter([b"ab"])))
        list(phases.track("layer", 3, iter([b"c"]), 2))
        list(phases.track("other", 5, iter([b"abcde"])))
    assert (seen[-1].done_bytes, seen[-1].total_bytes, seen[-1].amount) == (8, 8, "8 B of 8 B")


def test_total_is_not_known_where_one_size_is_not() -> None:
    phase = Phase("push", moved={"layer": (3, None), "other": (5, 5)})
    assert (phase.total_bytes, phase.amount) == (None, "8 B")
