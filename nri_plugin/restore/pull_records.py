"""What is remembered of who could pull an image: ``<state>/pulls``, one empty file a right.

A file's name is a keyed hash of the right, its modification time is when the registry granted it. So the records hold
no credentials and no names, need no lock, and outlive the daemon. The key stays on the node.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

KEPT_S: Final = 7 * 86400.0
"""After this the registry is asked again, which by then may have taken the right away."""
RECORDS_MAX: Final = 4096
"""The oldest go first."""
_KEY: Final = "key"
_KEY_BYTES: Final = 32
_CLOCK_STEP_S: Final = 60.0
"""How far in the future a record may lie: clocks are set."""


class PullRecords:
    """Rights by what they consist of; safe to use from several threads."""

    def __init__(self, directory: Path, *, limit: int = RECORDS_MAX) -> None:
        self.directory = directory
        self.limit = limit
        self._guard = threading.Lock()
        self._key = b""

    def knows(self, *right: str) -> bool:
        """Whether ``right`` was remembered, and not too long ago."""
        try:
            return _fresh(self._record(right).stat().st_mtime)
        except OSError:
            return False

    def remember(self, *right: str) -> None:
        """Notes a right that was granted just now; what cannot be written is asked for again next time."""
        try:
            record = self._record(right)
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(record, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            os.utime(record)
            self._prune()
        except OSError as error:
            log.warning("%s cannot be written, so the registry is asked again: %s", self.directory, error.strerror)

    def _record(self, right: tuple[str, ...]) -> Path:
        return self.directory / hmac.new(self._secret(), json.dumps(right).encode(), hashlib.sha256).hexdigest()

    def _secret(self) -> bytes:
        """The node's key, made when there is none; another key knows none of the old records, which then expire."""
        with self._guard:
            if not self._key:
                path = self.directory / _KEY
                try:
                    self._key = path.read_bytes()
                except FileNotFoundError:
                    self._key = b""
                if len(self._key) != _KEY_BYTES:
                    self._key = b""
                    self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                    new, temporary = secrets.token_bytes(_KEY_BYTES), path.with_name(f".{_KEY}")
                    temporary.unlink(missing_ok=True)
                    with open(temporary, "xb", opener=_private) as file:
                        file.write(new)
                    temporary.rename(path)
                    self._key = new
            return self._key

    def _prune(self) -> None:
        with self._guard:
            records = []
            for path in self.directory.iterdir():
                if path.name != _KEY:
                    try:
                        records.append((path.stat().st_mtime, path))
                    except FileNotFoundError:
                        continue
            records.sort(reverse=True)
            for position, (granted_at, path) in enumerate(records):
                if position >= self.limit or not _fresh(granted_at):
                    path.unlink(missing_ok=True)


def _fresh(granted_at: float) -> bool:
    return -_CLOCK_STEP_S < time.time() - granted_at < KEPT_S


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
