"""What `run` tells while it works: phases with their bytes, rates and times, and notes.

Three ways to show it: lines (here), one JSON event a line (here), and a live view on a terminal (run.live).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from kubectl_restore.image.progress import Piece
from kubectl_restore.printing import on_terminal, size_of
from shared.printable import safe

LINES_EVERY_S: Final = 10.0
EVENTS_EVERY_S: Final = 1.0


@dataclass
class Phase:
    name: str
    about: str = ""
    state: Literal["planned", "running", "finished", "failed"] = "planned"
    now: str = ""
    """What it waits for."""
    began: float = 0.0
    ended: float = 0.0
    moved: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    """Bytes done and to do, by what they are of; None: not known yet."""
    moving_since: float = 0.0

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.began if self.began else 0.0

    @property
    def done_bytes(self) -> int:
        return sum(done for done, _ in self.moved.values())

    @property
    def total_bytes(self) -> int | None:
        totals = [total for _, total in self.moved.values()]
        return None if None in totals else sum(filter(None, totals))

    @property
    def amount(self) -> str:
        """``12 MiB of 1.5 GiB``"""
        total = self.total_bytes
        return size_of(self.done_bytes) + ("" if total is None else f" of {size_of(total)}")

    @property
    def rate(self) -> int:
        """Bytes a second."""
        return round(self.done_bytes / max((self.ended or time.monotonic()) - self.moving_since, 1e-3))


class Shown(Protocol):
    def changed(self, phase: Phase) -> None:
        """Its state or ``now`` did."""

    def moved(self, phase: Phase) -> None:
        """Bytes did; called for every piece."""

    def note(self, sentence: str) -> None: ...


@dataclass
class Phases:
    """The phases of one run, in their order; ``track`` counts bytes into the one under way."""

    shown: Shown
    _under_way: Phase | None = None

    @contextmanager
    def phase(self, name: str, about: str) -> Iterator[None]:
        phase = Phase(name, about, "running", began=time.monotonic())
        self._under_way = phase
        try:
            self.shown.changed(phase)
            yield
        except BaseException:
            phase.ended, phase.state = time.monotonic(), "failed"
            raise
        else:
            phase.ended, phase.state = time.monotonic(), "finished"
        finally:
            self._under_way = None
            self.shown.changed(phase)

    def now(self, what: str) -> None:
        """What the phase under way waits for."""
        if self._under_way and what != self._under_way.now:
            self._under_way.now = what
            self.shown.changed(self._under_way)

    def note(self, sentence: str) -> None:
        self.shown.note(sentence)

    def track(self, label: str, size: int | None, pieces: Iterator[Piece], offset: int = 0) -> Iterator[Piece]:
        phase = self._under_way
        if phase:
            phase.moving_since = phase.moving_since or time.monotonic()
        for piece in pieces:
            offset += len(piece)
            if phase:
                phase.moved[label] = offset, None if size is None else max(size, offset)
                self.shown.moved(phase)
            yield piece


class Lines:
    """At the start and end of each phase, and now and then in between."""

    def __init__(self) -> None:
        self._spoke = time.monotonic()

    def changed(self, phase: Phase) -> None:
        if phase.state == "running":
            self._say(f"{phase.name}: {phase.now or phase.about}")
            return
        moved = f", {size_of(phase.done_bytes)} at {size_of(phase.rate)}/s" if phase.moved else ""
        self._say(f"{phase.name}: {phase.state} in {phase.seconds:.1f} s{moved}")

    def moved(self, phase: Phase) -> None:
        if time.monotonic() - self._spoke >= LINES_EVERY_S:
            self._say(f"{phase.name}: {phase.amount} at {size_of(phase.rate)}/s")

    def note(self, sentence: str) -> None:
        self._say(sentence)

    def _say(self, line: str) -> None:
        self._spoke = time.monotonic()
        print(safe(line), file=sys.stderr, flush=True)


class Events:
    """``started``, ``waiting``, ``progress``, ``finished``, ``failed`` and ``note``, on standard output."""

    def __init__(self) -> None:
        self._began = self._spoke = time.monotonic()

    def changed(self, phase: Phase) -> None:
        if phase.state == "running":
            self._say("waiting" if phase.now else "started", phase.now or phase.about, phase=phase.name)
        else:
            measured = {"seconds": round(phase.seconds, 3), "bytes": phase.done_bytes}
            self._say(phase.state, phase.about, phase=phase.name, **measured)

    def moved(self, phase: Phase) -> None:
        if time.monotonic() - self._spoke >= EVENTS_EVERY_S:
            measured = {"bytes": phase.done_bytes, "totalBytes": phase.total_bytes, "bytesPerSecond": phase.rate}
            self._say("progress", phase.about, phase=phase.name, **measured)

    def note(self, sentence: str) -> None:
        self._say("note", sentence)

    def _say(self, event: str, about: str, **more: Any) -> None:
        self._spoke = time.monotonic()
        found = {"event": event, "about": about, "at": round(self._spoke - self._began, 3), **more}
        print(json.dumps(found), flush=True)


def shown(names: Sequence[str], *, as_json: bool) -> AbstractContextManager[Shown]:
    """A live view of the phases ``names`` when standard error is a terminal."""
    if as_json:
        return nullcontext(Events())
    if not on_terminal(sys.stderr):
        return nullcontext(Lines())
    from kubectl_restore.run.live import Live

    return Live(names)
