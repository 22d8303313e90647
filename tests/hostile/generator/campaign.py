"""Thousands of mutations of several checkpoints, on all processors, and what came of them as figures."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from shared.judge.rules import Fields
from tests.hostile.attack import Victim
from tests.hostile.generator.edits import Edit, FieldName, Forged, NotPossible, apply, to_json
from tests.hostile.generator.fields import EVERY
from tests.hostile.generator.mutations import Mutations
from tests.hostile.generator.outcome import Judge, Outcome, Twin, Verdict, outcome, ruled
from tests.hostile.generator.sample import Sample

BATCH: Final = 250
HARMFUL_SHOWN: Final = 200
EXAMPLES: Final = 3
ACCEPTED_KEPT: Final = 4
"""Of each batch, for the restores on a real node."""


@dataclass(frozen=True)
class Made:
    """One mutation of one checkpoint."""

    sample: Victim
    seed: int
    number: int
    edits: tuple[Edit, ...]

    def __str__(self) -> str:
        return f"{self.sample}, seed {self.seed}, number {self.number}: {'; '.join(map(str, self.edits))}"


@dataclass
class Figures:
    """What came of a number of mutations."""

    mutations: int = 0
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """Codes of the refusals."""
    mutated: set[FieldName] = field(default_factory=set)
    harmful: list[str] = field(default_factory=list)
    compared: Counter[str] = field(default_factory=Counter)
    """How often a change was let through whose bounds a module keeps."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    accepted: list[Made] = field(default_factory=list)

    def count(self, made: Made, forged: Forged, came: Outcome) -> None:
        self.mutations += 1
        self.verdicts[came.verdict] += 1
        self.mutated |= forged.touched
        if came.verdict is Verdict.REFUSED:
            self.reasons[came.why] += 1
            return
        if came.verdict is Verdict.HARMFUL:
            self.harmful.append(
                f"harmful: {came.why}\n  {made}\n  --sample {made.sample} --try '{to_json(made.edits)}'"
            )
            return
        for each in came.changed:
            self.compared[each] += 1
            if len(known := self.examples.setdefault(each, [])) < EXAMPLES:
                known.append(str(made))
        self.accepted.append(made)

    def add(self, other: Figures) -> None:
        self.mutations += other.mutations
        self.verdicts += other.verdicts
        self.reasons += other.reasons
        self.mutated |= other.mutated
        self.harmful += other.harmful
        self.compared += other.compared
        for name, shown in other.examples.items():
            known = self.examples.setdefault(name, [])
            known += shown[: EXAMPLES - len(known)]
        self.accepted += other.accepted

    def lines(self, rules: Fields) -> list[str]:
        """The last lines of a run."""
        verdicts = self.verdicts
        free = verdicts[Verdict.FREE] + verdicts[Verdict.WITHIN] + verdicts[Verdict.COMPARED]
        refused, same, harmful = (verdicts[each] for each in (Verdict.REFUSED, Verdict.SAME, Verdict.HARMFUL))
        return [
            f"fields={len(EVERY)} ruled={ruled(rules, EVERY)} mutated={len(self.mutated & EVERY)}",
            f"mutations={self.mutations} refused={refused} same={same} free={free} harmful={harmful}",
        ]

    def details(self) -> Iterator[str]:
        """What a reader looks at: every harmful one, then what was let through because a module compared it."""
        yield from self.harmful[:HARMFUL_SHOWN]
        if len(self.harmful) > HARMFUL_SHOWN:
            yield f"… and {len(self.harmful) - HARMFUL_SHOWN} more that are harmful"
        verdicts = self.verdicts
        yield (
            f"accepted with effect: {verdicts[Verdict.FREE]} free, {verdicts[Verdict.WITHIN]} within bounds of the "
            f"table, {verdicts[Verdict.COMPARED]} that a module compares:"
        )
        for name, count in self.compared.most_common():
            yield f"  {count:6} {name}"
            yield from (f"           {shown[:240]}" for shown in self.examples[name])
        yield "refused: " + ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common())


@dataclass
class Campaign:
    """Mutations of some checkpoints, judged in this process and its children."""

    samples: Sequence[Sample]
    judge: Judge
    rules: Fields
    seed: int
    twins: list[Twin] = field(default_factory=list)
    mutations: list[Mutations] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.twins = [Twin.of(sample, self.judge) for sample in self.samples]
        self.mutations = [Mutations(sample, self.seed) for sample in self.samples]
        for each in self.mutations:
            each.singles  # noqa: B018  made before the children, which share it
            each.sample.absent  # noqa: B018

    def run(self, count: int, *, seconds: float = float("inf"), processes: int | None = None) -> Figures:
        """``count`` mutations, the same number of each checkpoint, or as many as fit into the time."""
        global _current
        figures = Figures()
        ends = time.monotonic() + seconds
        each = -(-count // len(self.samples))
        batches = [
            (which, start, min(start + BATCH, each))
            for start in range(0, each, BATCH)
            for which in range(len(self.samples))
        ]
        processes = processes or os.cpu_count() or 1
        if processes == 1:
            for batch in itertools.takewhile(lambda _: time.monotonic() < ends, batches):
                figures.add(self.batch(*batch))
            return figures
        _current = self
        context = multiprocessing.get_context("fork")
        with context.Pool(processes) as pool:
            for found in pool.imap(_batch, ((*batch, ends) for batch in batches)):
                figures.add(found)
        return figures

    def batch(self, which: int, start: int, stop: int) -> Figures:
        figures = Figures()
        twin, mutations = self.twins[which], self.mutations[which]
        for number in range(start, stop):
            made = Made(twin.sample.name, self.seed, number, tuple(mutations.number(number)))
            try:
                forged = apply(twin.sample, made.edits)
            except NotPossible:
                continue
            figures.count(made, forged, outcome(twin, made.edits, forged, self.judge, self.rules))
        figures.accepted = _spread(figures.accepted, ACCEPTED_KEPT)
        return figures


def _spread(accepted: list[Made], most: int) -> list[Made]:
    """Some of them, from all over the list."""
    return accepted[:: max(1, len(accepted) // most)][:most]


_current: Campaign | None = None


def _batch(batch: tuple[int, int, int, float]) -> Figures:
    which, start, stop, ends = batch
    assert _current is not None
    return _current.batch(which, start, stop) if time.monotonic() < ends else Figures()
