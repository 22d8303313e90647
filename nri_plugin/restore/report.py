"""What a preparation did and how long each step took, as one line in the daemon's log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from nri_plugin.restore.request import RestoreRequest


@dataclass
class RestoreReport:
    """Phases of one preparation in order, in milliseconds, and what the user should know."""

    request: RestoreRequest
    started: float = field(default_factory=time.monotonic)
    phases: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    outcome: str = ""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + (time.monotonic() - begin) * 1000

    def line(self) -> str:
        """``outcome in 31 ms: view 4, metadata 7, … unaccounted 1``."""
        total = (time.monotonic() - self.started) * 1000
        steps = ", ".join(f"{name} {spent:.0f}" for name, spent in self.phases.items())
        rest = total - sum(self.phases.values())
        return f"{self.outcome} in {total:.0f} ms: {steps or 'no steps'}, unaccounted {rest:.0f}"
