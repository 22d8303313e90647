"""The daemon's log on stderr: lines for people or JSON for machines, each saying which container it is about.

``with about(request): log.info(…)`` names the container in every line logged inside, also by what is called there.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Final

from nri_plugin.config import Log
from shared.printable import safe

LEVEL_VARIABLE: Final = "NRI_RESTORE_LOG_LEVEL"
"""Environment variable that wins over the configuration, for both processes: what ``--verbose`` sets."""
_JOURNAL_PRIORITY: Final = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""sd-daemon(3): a line on stderr that begins with ``<N>`` has that priority in the journal."""


@dataclass(frozen=True)
class Subject:
    """The container that log lines and Kubernetes Events are about."""

    namespace: str
    pod: str
    pod_uid: str
    container: str
    container_id: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}/{self.container} ({self.container_id[:12]})"


_subject: ContextVar[Subject | None] = ContextVar("subject", default=None)


@contextmanager
def about(subject: Subject | None) -> Iterator[None]:
    """Names ``subject`` in every line logged inside, by this thread or task."""
    before = _subject.set(subject)
    try:
        yield
    finally:
        _subject.reset(before)


class _Formatter(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self.process = process

    def traceback(self, record: logging.LogRecord) -> list[str]:
        """Its lines; the last ones hold the exception's text, which may be anybody's."""
        return [safe(line) for line in self.formatException(record.exc_info).split("\n")] if record.exc_info else []


class TextFormatter(_Formatter):
    """``WARNING worker: default/web/main (0123456789ab): sentence``."""

    def format(self, record: logging.LogRecord) -> str:
        subject = _subject.get()
        who = f"{subject}: " if subject else ""
        lines = [safe(f"{who}{record.getMessage()}"), *self.traceback(record)]
        return f"{record.levelname} {self.process}: " + "\n".join(lines)


class JsonFormatter(_Formatter):
    """One object a line: time (RFC 3339, UTC), level, process, message; and of a container its Subject; traceback."""

    def format(self, record: logging.LogRecord) -> str:
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        subject = _subject.get()
        return json.dumps(
            {
                "time": f"{second}.{record.msecs:03.0f}Z",
                "level": record.levelname.lower(),
                "process": self.process,
                "message": safe(record.getMessage()),
                **(asdict(subject) if subject else {}),
                **({"traceback": "\n".join(self.traceback(record))} if record.exc_info else {}),
            },
            ensure_ascii=False,
        )


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Gives each line its priority where stderr is the journal."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        if "JOURNAL_STREAM" not in os.environ:
            return line
        # Line by line: the journal would give the rest of a traceback the default priority.
        return "\n".join(f"<{_JOURNAL_PRIORITY.get(record.levelno, 6)}>{each}" for each in line.split("\n"))


def configure(settings: Log, process: str) -> None:
    """Logs to stderr from now on; may be called again with other settings."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if settings.format == "json" else TextFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel((os.environ.get(LEVEL_VARIABLE) or settings.level).upper())
