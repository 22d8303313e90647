from __future__ import annotations

import os
import pty
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kubectl_restore.image.progress import Silent, progress

PIECES = [bytes(1 << 20), bytes(1 << 20)]


def test_nothing_is_shown_where_nobody_looks() -> None:
    for quiet in (True, False):
        with progress(quiet=quiet) as bars:
            assert isinstance(bars, Silent)
            assert list(bars.track("layer", 2 << 20, iter(PIECES))) == PIECES


@contextmanager
def _terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[bytearray]:
    """Standard error is a terminal meanwhile; afterwards the bytes hold what it has shown.

    No fixture: pytest's capturing puts its own standard error back between set-up and test.
    """
    person, program = pty.openpty()
    shown = bytearray()

    def look() -> None:
        try:
            while piece := os.read(person, 4096):
                shown.extend(piece)
        except OSError:
            pass  # EIO: the program's side is closed

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    with os.fdopen(program, "w") as stream, monkeypatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "80")
        patch.setattr(sys, "stderr", stream)
        yield shown
    watcher.join(10)
    os.close(person)


def test_a_terminal_shows_a_bar_for_a_large_blob(monkeypatch: pytest.MonkeyPatch) -> None:
    with _terminal(monkeypatch) as shown, progress(quiet=False) as bars:
        assert list(bars.track("a layer", 2 << 20, iter(PIECES))) == PIECES
        assert list(bars.track("a layer", 2 << 20, iter(PIECES[:1]), 1 << 20)) == PIECES[:1], "taken up again"
        assert list(bars.track("config", 10, iter([b"x" * 10]))) == [b"x" * 10]
    assert b"2.0/2.0 MiB" in shown.rpartition(b"a layer")[2], "on one line"
    assert b"config" not in shown


def test_quiet_is_quiet_on_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with _terminal(monkeypatch) as shown, progress(quiet=True) as bars:
        assert list(bars.track("a layer", 2 << 20, iter(PIECES))) == PIECES
    assert not shown
