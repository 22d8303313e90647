from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import pytest

from kubectl_restore import cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``kubectl-restore …`` in this process: exit status, standard output, standard error."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kubectl-restore", *map(str, words)])
        try:
            with pytest.raises(SystemExit) as end:
                cli.main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run
