"""What a benchmark says: one figure of ours beside a rival's, medians of runs that took turns."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.bench.setting import Setting

Sample = Callable[[], float]
"""One run of one side; returns its figure."""


@dataclass(frozen=True)
class Result:
    """One measurement; ``ours`` and ``rival`` are medians in ``unit``."""

    name: str
    unit: str
    ours: float
    rival: float | None = None
    rival_name: str = ""
    runs: int = 1
    """Runs of each side."""
    goal: str = ""
    limit: float | None = None
    """The goal as the largest figure of ours that meets it."""
    spread: tuple[float, float] | None = None
    """Quartiles of ours."""

    @property
    def ratio(self) -> float | None:
        return self.ours / self.rival if self.rival else None

    @property
    def met(self) -> bool | None:
        """None without a goal."""
        return None if self.limit is None else self.ours <= self.limit

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": _rounded(self.ours),
            "rival": _rounded(self.rival),
            "rival_name": self.rival_name or None,
            "ratio": _rounded(self.ratio),
            "runs": self.runs,
            "goal": self.goal or None,
            "met": self.met,
            "quartiles": [_rounded(value) for value in self.spread] if self.spread else None,
        }


@dataclass(frozen=True)
class Benchmark:
    """Something ``--only`` can name; ``runs`` is how often each side is run unless ``--runs`` says otherwise."""

    name: str
    about: str
    runs: int
    measure: Callable[[Setting, int], Iterable[Result]]


def take_turns(runs: int, *sides: Sample, warm_up: bool = True, seed: int = 0) -> list[list[float]]:
    """Runs every side ``runs`` times, in a new random order each time; the figures by side.

    ``warm_up``: one more round comes first that does not count; it pays for what is made once.
    """
    order = random.Random(seed)
    figures: list[list[float]] = [[] for _ in sides]
    for number in range(0 if warm_up else 1, runs + 1):
        for side in order.sample(range(len(sides)), len(sides)):
            figure = sides[side]()
            if number:
                figures[side].append(figure)
    return figures


def quartiles(figures: Sequence[float]) -> tuple[float, float] | None:
    """First and third quartile; None of fewer than four figures."""
    if len(figures) < 4:
        return None
    first, _, third = statistics.quantiles(figures, n=4, method="inclusive")
    return first, third


def compare(
    name: str,
    unit: str,
    ours: Sequence[float],
    rival: Sequence[float] = (),
    rival_name: str = "",
    *,
    goal: str = "",
    limit: Callable[[float], float] | None = None,
) -> Result:
    """The medians; ``limit`` gives the largest figure that meets the goal, from the rival's median (0 without one)."""
    other = statistics.median(rival) if rival else None
    return Result(
        name,
        unit,
        statistics.median(ours),
        other,
        rival_name,
        len(ours),
        goal,
        limit(other or 0.0) if limit else None,
        quartiles(ours),
    )


def _rounded(value: float | None) -> float | None:
    """Four significant digits: what such runs can tell."""
    return None if value is None else float(f"{value:.4g}")
