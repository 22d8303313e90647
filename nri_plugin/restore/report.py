"""What a preparation did and how long each step took, as one line in the daemon's log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nri_plugin.restore.request import RestoreRequest
from shared.errors import RestoreError


@dataclass
class RestoreReport:
    """Phases of one preparation in order, in milliseconds, and what the user should know."""

    request: RestoreRequest
    started: float = field(default_factory=time.monotonic)
    phases: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    outcome: str = ""
    error: RestoreError | None = None
    """Why it was refused, also where the container starts afresh for it."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + (time.monotonic() - begin) * 1000

    def document(self) -> Mapping[str, Any]:
        """The same for the plan's file ``report``; times in seconds."""
        return {
            "outcome": self.outcome,
            "reason": self.error.reason if self.error else "",
            "sentence": self.error.sentence if self.error else "",
            "total_s": time.monotonic() - self.started,
            "phases": {name: spent / 1000 for name, spent in self.phases.items()},
            "warnings": self.warnings,
        }

    def line(self) -> str:
        """``outcome in 31 ms: view 4, metadata 7, … unaccounted 1``."""
        total = (time.monotonic() - self.started) * 1000
        steps = ", ".join(f"{name} {spent:.0f}" for name, spent in self.phases.items())
        rest = total - sum(self.phases.values())
        return f"{self.outcome} in {total:.0f} ms: {steps or 'no steps'}, unaccounted {rest:.0f}"
