"""Mutations of every field of CRIU's format: none is let through with an effect that the table does not allow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.generator.campaign import Campaign, Figures
from tests.hostile.generator.fields import EVERY
from tests.hostile.generator.generated import FIELDS, Generated, differs_from_disk
from tests.hostile.generator.outcome import Verdict
from tests.hostile.nodes import Nodes

SEED = 7
MUTATIONS = 4000
"""The first thousand or so of each checkpoint have every field once; it takes half a minute on two idle cores."""
RESTORED = 5


@pytest.fixture(scope="module")
def ground(hostile_nodes: Nodes) -> Generated:
    return Generated.of(hostile_nodes, ["sink", "sink-user"])


@pytest.fixture(scope="module")
def campaign(ground: Generated) -> Campaign:
    return ground.campaign(SEED)


@pytest.fixture(scope="module")
def figures(campaign: Campaign) -> Iterator[Figures]:
    found = campaign.run(MUTATIONS)
    for line in (*found.details(), *found.lines(FIELDS)):
        print(line)
    yield found


def test_every_field_has_a_rule_and_is_changed(figures: Figures) -> None:
    assert figures.mutated >= EVERY
    assert figures.lines(FIELDS)[0] == f"fields={len(EVERY)} ruled={len(EVERY)} mutated={len(EVERY)}"


def test_no_mutation_does_harm(figures: Figures) -> None:
    assert figures.harmful == []


def test_mutations_come_to_every_end(figures: Figures) -> None:
    assert figures.mutations > MUTATIONS * 0.9
    for verdict in (Verdict.REFUSED, Verdict.SAME, Verdict.FREE, Verdict.WITHIN):
        assert figures.verdicts[verdict] > 50, verdict


def test_files_on_disk_are_judged_as_those_in_memory(campaign: Campaign, tmp_path: Path) -> None:
    assert differs_from_disk(campaign, tmp_path) == []


def test_what_is_not_refused_leaves_the_node_as_it_was(ground: Generated, figures: Figures) -> None:
    restored = ground.restore(figures.accepted, RESTORED, SEED)
    assert restored.tried == RESTORED
    assert restored.honest_refused == []
    assert restored.effects == []
