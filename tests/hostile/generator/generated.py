"""The generated attacks as ``make hostile`` and the tests run them: in this process, and a few of them for real."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from shared.errors import RestoreError
from shared.judge.rules import Fields
from shared.judge.table import RULES
from tests.e2e.restoring import Taken
from tests.hostile.attack import Victim
from tests.hostile.generator.campaign import Campaign, Made
from tests.hostile.generator.difference import Written
from tests.hostile.generator.edits import Edit, NotPossible, apply
from tests.hostile.generator.judging import judged, judged_from
from tests.hostile.generator.outcome import Outcome, Twin, outcome
from tests.hostile.generator.restoring import Restored, chosen, restore
from tests.hostile.generator.sample import InMemory, Sample, twin
from tests.hostile.in_process import forged, unpack
from tests.hostile.nodes import Nodes
from tests.hostile.victims import archives_of

FIELDS: Final[Fields] = RULES.fields
WHOLE: Final = 20
"""Mutations that are judged once more from files on disk."""


@dataclass
class Generated:
    """Checkpoints to mutate, and the node to restore them on."""

    nodes: Nodes
    samples: dict[Victim, Sample]
    victims: Mapping[Victim, Taken]

    @classmethod
    def of(cls, nodes: Nodes, names: Iterable[Victim] = ()) -> Generated:
        """``names``: of the checkpoints; empty: all."""
        victims: dict[Victim, Taken] = {**nodes.victims, **nodes.sinks}
        archives = archives_of(victims)
        samples = {name: Sample.of(name, archives[name]) for name in names or archives}
        return cls(nodes, samples, victims)

    def campaign(self, seed: int) -> Campaign:
        return Campaign(list(self.samples.values()), judged, FIELDS, seed)

    def restore(self, accepted: Sequence[Made], count: int, seed: int) -> Restored:
        """Some of what nothing refused, on the node whose containerd leaves all of the restore to us."""
        return restore(self.nodes.node_17, self.victims, self.samples, chosen(accepted, count, seed))

    def attempt(self, name: Victim, edits: Sequence[Edit]) -> Outcome:
        """One mutation again."""
        honest = Twin.of(self.samples[name], judged)
        return outcome(honest, edits, apply(honest.sample, edits), judged, FIELDS)


def differs_from_disk(campaign: Campaign, folder: Path, count: int = WHOLE) -> list[str]:
    """Mutations of which the files on disk, read by what the daemon reads them with, are judged otherwise."""
    chance = random.Random(campaign.seed)
    found = []
    for number in range(count):
        mutations = chance.choice(campaign.mutations)
        edits = mutations.number(chance.randrange(2 * len(mutations.singles)))
        try:
            changed = apply(mutations.sample, edits).files
        except NotPossible:
            continue
        place = folder / str(number)
        place.mkdir()
        unpack(forged(twin("on disk", mutations.sample.name, changed), mutations.sample.archive).tar(), place)
        here = _came(lambda: judged(mutations.sample, InMemory(mutations.sample.files, changed)))  # noqa: B023
        there = _came(lambda: judged_from(place, mutations.sample))  # noqa: B023
        if here != there:
            found.append(f"{mutations.sample.name}: {'; '.join(map(str, edits))}: {here} in memory, {there} on disk")
    return found


def _came(judge: Callable[[], Written]) -> str:
    """The code of the refusal, or what stands for the images that CRIU would get."""
    try:
        written = judge()
    except RestoreError as error:
        return error.reason
    pieces = [(name, *map(repr, written[name])) for name in sorted(written)]
    return f"images {sha256(repr(pieces).encode()).hexdigest()[:12]}"
