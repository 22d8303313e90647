"""What `run` tells while it works: one line, or one JSON event, at the start and end of each phase.

On a terminal the bars of image.progress stand below these lines.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kubectl_restore.image.progress import Piece, Progress
from kubectl_restore.printing import safe, size_of


@dataclass
class Phases:
    """``track`` counts bytes into the phase under way, and passes them on to the bars."""

    bars: Progress
    as_json: bool = False
    began: float = field(default_factory=time.monotonic)
    _bytes: int = 0

    @contextmanager
    def phase(self, name: str, about: str) -> Iterator[None]:
        self._bytes, started = 0, time.monotonic()
        self._tell("started", name, about)
        try:
            yield
        except BaseException:
            self._tell("failed", name, about, time.monotonic() - started)
            raise
        self._tell("finished", name, about, time.monotonic() - started)

    def note(self, sentence: str) -> None:
        self._tell("note", "", sentence)

    def track(self, label: str, size: int | None, pieces: Iterator[Piece], offset: int = 0) -> Iterator[Piece]:
        for piece in self.bars.track(label, size, pieces, offset):
            self._bytes += len(piece)
            yield piece

    def _tell(self, event: str, phase: str, about: str, seconds: float | None = None) -> None:
        if self.as_json:
            found: dict[str, Any] = {"event": event, "about": about, "at": round(time.monotonic() - self.began, 3)}
            found |= {"phase": phase} if phase else {}
            if seconds is not None:
                found |= {"seconds": round(seconds, 3), "bytes": self._bytes}
            print(json.dumps(found), flush=True)
            return
        if seconds is None:
            line = about if event == "note" else f"{phase}: {about}"
        else:
            rate = f", {size_of(self._bytes)} at {size_of(round(self._bytes / max(seconds, 1e-3)))}/s"
            line = f"{phase}: {event} in {seconds:.1f} s{rate if self._bytes else ''}"
        print(safe(line), file=sys.stderr, flush=True)
