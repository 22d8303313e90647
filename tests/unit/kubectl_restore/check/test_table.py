from __future__ import annotations

import io
import re

import pytest

from kubectl_restore.check.findings import finding, report_of
from kubectl_restore.check.table import print_report
from tests.unit.kubectl_restore.test_printing import Terminal

REPORT = report_of(
    "ck\x1b[2J.tar", "node-1", [finding("CriuTooOld", "machine", "one two three four five six seven eight nine")]
)


def test_elsewhere_each_finding_is_a_line() -> None:
    out = io.StringIO()
    print_report(REPORT, out)
    assert out.getvalue() == (
        "ck\\x1b[2J.tar: would fail on node-1\n"
        "LEVEL   CODE         FINDING\n"
        "fails   CriuTooOld   one two three four five six seven eight nine\n"
    )


def test_on_a_terminal_sentences_stay_in_their_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "52")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    print_report(REPORT, out)
    assert "\x1b[1;31mfails" in out.getvalue()
    assert re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()[2:] == [
        "fails   CriuTooOld   one two three four five six",
        "                     seven eight nine",
    ]
