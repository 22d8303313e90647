"""The daemon's metrics, in the Prometheus text exposition format 0.0.4.

Kept by the session, which lives on when a worker dies. Own lines rather than the client library: that takes 5 MB, and
all there is here are a few counters and one histogram.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

Labels = Mapping[str, str]
Sample = tuple[str, Labels, float]
"""What follows the family's name (``_bucket``), labels, value."""


@dataclass
class Histogram:
    """How often something took how long."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0

    def observe(self, seconds: float) -> None:
        self.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    def samples(self, labels: Labels) -> Iterator[Sample]:
        total = 0
        for limit, count in zip((*(f"{each:g}" for each in BUCKETS_S), "+Inf"), self.buckets, strict=True):
            total += count
            yield "_bucket", {**labels, "le": limit}, total
        yield "_sum", labels, self.sum_s
        yield "_count", labels, total


@dataclass
class Metrics:
    """What happened since this daemon started; the NRI session's own counts are handed in when they are asked for."""

    version: str
    restores: Counter[tuple[str, str]] = field(default_factory=Counter)
    phases: dict[str, Histogram] = field(default_factory=dict)
    plans: Mapping[str, int] = field(default_factory=dict)
    oldest_s: float = 0.0
    """How long ago the oldest restore began that is being prepared or restored."""
    cleaned: int = 0
    worker_starts: int = 0

    def told(self, result: str, reason: str, phases: Mapping[str, float]) -> None:
        """Counts a restore that has ended; ``phases`` in seconds."""
        self.restores[result, reason] += 1
        for phase, seconds in phases.items():
            self.phases.setdefault(phase, Histogram()).observe(seconds)

    def render(self, session: Mapping[str, int], *, connected: bool) -> str:
        """The whole document; ``session`` is nri_plugin.nri.session.Session.counts."""
        return "".join(self._families(session, connected))

    def _families(self, session: Mapping[str, int], connected: bool) -> Iterator[str]:
        def plain(values: Mapping[str, float], label: str) -> list[Sample]:
            return [("", {label: key}, value) for key, value in sorted(values.items())]

        about = {"version": self.version, "python": ".".join(map(str, sys.version_info[:3]))}
        yield _family("build_info", "gauge", "The daemon's version.", [("", about, 1)])
        yield _family(
            "restores_total", "counter", "Restores that ended, by result and reason code.",
            [("", {"result": result, "reason": reason}, n) for (result, reason), n in sorted(self.restores.items())],
        )  # fmt: skip
        yield _family(
            "phase_duration_seconds", "histogram", "How long each step of a restore took.",
            [each for phase, found in sorted(self.phases.items()) for each in found.samples({"phase": phase})],
        )  # fmt: skip
        yield _family("plans", "gauge", "Containers under the handler, by state.", plain(self.plans, "state"))
        yield _family(
            "oldest_unfinished_seconds", "gauge", "Age of the oldest restore that is being prepared or restored.",
            [("", {}, self.oldest_s)],
        )  # fmt: skip
        yield _family(
            "orphans_cleaned_total", "counter", "Plans removed whose container is gone.", [("", {}, self.cleaned)]
        )
        yield _family(
            "worker_starts_total", "counter", "Worker processes started; more than one: it died or hung.",
            [("", {}, self.worker_starts)],
        )  # fmt: skip
        yield _family("nri_connected", "gauge", "Whether the runtime tells us its events.", [("", {}, int(connected))])
        yield _family(
            "nri_connections_total", "counter", "Registrations with the runtime; all but the first are reconnects.",
            [("", {}, session.get("connects", 0))],
        )  # fmt: skip
        yield _family(
            "containers_total", "counter", "Containers the runtime asked about, ours to decide on or not.",
            plain({"ours": session.get("owned", 0), "other": session.get("ordinary", 0)}, "kind"),
        )  # fmt: skip
        yield _family(
            "nri_problems_total", "counter", "Creations we made fail or answered too late, and defects.",
            plain({kind: session.get(kind, 0) for kind in ("failed", "late", "undecodable", "handler_errors")}, "kind"),
        )  # fmt: skip


def _family(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> str:
    name = f"nri_restore_{name}"
    lines = [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
    for suffix, labels, value in samples:
        words = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        lines.append(f"{name}{suffix}{{{words}}} {value}" if words else f"{name}{suffix} {value}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
