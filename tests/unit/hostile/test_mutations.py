"""Which edits a dump gives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import pytest

from tests.hostile.generator.edits import Edit, NotPossible, apply
from tests.hostile.generator.fields import EVERY, targets
from tests.hostile.generator.mutations import Mutations
from tests.hostile.generator.sample import Sample


def test_every_field_of_the_format_is_a_target(sample: Sample) -> None:
    behind_others = {("GhostChunkEntry", "len"), ("GhostChunkEntry", "off"), ("IpcMsg", "mtype"), ("IpcMsg", "msize")}
    assert EVERY - {target.name for target in targets(sample)} <= behind_others


def test_same_seed_gives_the_same_and_another_one_others(sample: Sample) -> None:
    def some(seed: int) -> list[list[Edit]]:
        mutations = Mutations(sample, seed)
        start = len(mutations.singles)
        return [mutations.number(number) for number in (*range(50), *range(start, start + 50))]

    assert some(1) == some(1)
    assert some(1) != some(2)


def test_single_edits_come_first_each_field_in_turn_and_then_two_or_three(sample: Sample) -> None:
    mutations = Mutations(sample, 1)
    fields = {edit.path[-1][0] for edit in islice(mutations.singles, 1500) if edit.path}
    assert len(fields) > 400
    assert {len(mutations.number(number)) for number in range(100)} == {1}
    start = len(mutations.singles)
    assert {len(mutations.number(number)) for number in range(start, start + 100)} == {2, 3}


@pytest.mark.parametrize(
    "wanted",
    [
        lambda edit: edit.how == "set" and edit.path[-1][0] == "flags" and edit.value == 1 << 17,
        lambda edit: edit.how == "set" and edit.path[-1][0] == "uid" and edit.value == 0xFFFFFFFF,
        lambda edit: edit.how == "set" and edit.path[-1][0] == "name" and edit.value == b"/canary/kept",
        lambda edit: edit.how == "set" and isinstance(edit.value, bytes) and edit.value.endswith(b" (deleted)"),
        lambda edit: edit.how == "set" and isinstance(edit.value, bytes) and edit.value.endswith(b"\0"),
        lambda edit: edit.how == "clear" and edit.path[-1][0] == "sb_flags",
        lambda edit: edit.how == "suffix",
        lambda edit: edit.how == "reverse",
        lambda edit: edit.how == "tail" and edit.image == "mountpoints-13.img",
        lambda edit: edit.how == "file" and edit.image == "unknown.img",
        lambda edit: edit.how == "file" and edit.image == "core-99.img",
        lambda edit: edit.how == "message" and edit.path[-1][0] == "bpf",
        lambda edit: edit.how in ("drop", "swap") and edit.path[-1][0] == "vmas",
    ],
)
def test_values_that_matter_are_among_them(sample: Sample, wanted: Callable[[Edit], bool]) -> None:
    assert any(map(wanted, Mutations(sample, 1).singles))


def test_nearly_all_of_them_can_be_made(sample: Sample) -> None:
    mutations = Mutations(sample, 1)
    numbers = (*range(1000), *range(len(mutations.singles), len(mutations.singles) + 1000))
    failed = 0
    for number in numbers:
        try:
            apply(sample, mutations.number(number))
        except NotPossible:
            failed += 1
    assert failed < 100
