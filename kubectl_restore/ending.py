"""How a command ends: 0, 1 with one sentence, 2 for wrong usage (by click), 130 and 143 for signals."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

from shared.errors import RestoreError

_debug = False


def _remember(value: bool) -> bool:
    global _debug
    _debug = value
    return value


Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", callback=_remember)]
"""The option that every verb has; its value is used here."""


@contextmanager
def ending() -> Iterator[None]:
    """Turns errors into one line on standard error; a traceback only with --debug."""
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGHUP, _terminated)
    try:
        yield
    except KeyboardInterrupt:
        _stop(130, "interrupted")
    except RestoreError as error:
        remedy = getattr(error, "remedy", "")
        _stop(1, f"error: {error}" + (f"\n\n{remedy.rstrip()}" if remedy else ""))
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:
        _stop(1, f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except Exception as error:
        _stop(1, f"error: this is a bug in kubectl-restore, please report it with the output of --debug: {error!r}")


def _terminated(number: int, frame: object) -> NoReturn:
    """Lets context managers take back what was half done, as for an interrupt."""
    raise SystemExit(128 + number)


def _stop(status: int, line: str) -> NoReturn:
    if _debug:
        raise  # noqa: PLE0704 - called from an except block only
    print(line, file=sys.stderr)
    raise SystemExit(status) from None
