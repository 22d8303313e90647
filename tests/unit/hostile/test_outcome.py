"""What the suite makes of a mutation that nothing refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shared.errors import Refused
from shared.judge.rules import Fields, Rule, bounded, default, derived, equal, free
from shared.judge.writing import Raw
from tests.hostile.generator.campaign import Campaign
from tests.hostile.generator.difference import Written
from tests.hostile.generator.edits import Edit, apply
from tests.hostile.generator.fields import EVERY
from tests.hostile.generator.layout import join, pattern_of
from tests.hostile.generator.outcome import Judge, Outcome, Twin, Verdict, outcome
from tests.hostile.generator.sample import FOLDER, InMemory, Sample

COMM = Edit("core-1.img", 0, (("tc", None), ("comm", None)), "set", b"other")


def passes(sample: Sample, files: InMemory) -> Written:
    """A judge that lets everything through as it is."""
    names = [name.removeprefix(FOLDER) for name in files.names() if name.startswith(FOLDER)]
    return {name: [files.content(FOLDER + name)] if pattern_of(name) else [Raw(name)] for name in names}


def empties(sample: Sample, files: InMemory) -> Written:
    """A judge that writes nothing."""
    return {}


def refuses(sample: Sample, files: InMemory) -> Written:
    if files.content(FOLDER + "core-1.img") != sample.files[FOLDER + "core-1.img"]:
        raise Refused("NotThat", "no")
    return {}


def breaks(sample: Sample, files: InMemory) -> Written:
    if files.content(FOLDER + "core-1.img") != sample.files[FOLDER + "core-1.img"]:
        raise KeyError("x")
    return {}


def rules(**own: Rule) -> Fields:
    """Every field is free but those of TaskCoreEntry that are named."""
    table: dict[str, dict[str, Rule]] = {}
    for message, field in EVERY:
        table.setdefault(message, {})[field] = free("")
    table["TaskCoreEntry"].update(own)
    return table


def came(sample: Sample, judge: Judge, *edits: Edit, **own: Rule) -> Outcome:
    return outcome(Twin.of(sample, judge), edits, apply(sample, edits), judge, rules(**own))


def test_refusal_is_a_refusal_with_its_code(sample: Sample) -> None:
    assert came(sample, refuses, COMM) == Outcome(Verdict.REFUSED, "NotThat")


def test_error_that_is_no_refusal_is_harmful(sample: Sample) -> None:
    assert came(sample, breaks, COMM).verdict is Verdict.HARMFUL


def test_same_images_are_the_same(sample: Sample) -> None:
    assert came(sample, empties, COMM).verdict is Verdict.SAME


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        (free(""), Verdict.FREE),
        (bounded("", lambda value: True), Verdict.WITHIN),
        (bounded(""), Verdict.COMPARED),
        (equal(""), Verdict.HARMFUL),
        (derived(""), Verdict.HARMFUL),
        (default(""), Verdict.HARMFUL),
    ],
)
def test_changed_field_is_judged_by_its_rule(sample: Sample, rule: Rule, verdict: Verdict) -> None:
    assert came(sample, passes, COMM, comm=rule).verdict is verdict


def test_worst_of_several_changes_counts(sample: Sample) -> None:
    other = replace(COMM, path=(("tc", None), ("exit_code", None)), value=9)
    assert came(sample, passes, COMM, other, comm=equal("")).verdict is Verdict.HARMFUL


def test_change_elsewhere_than_in_the_mutated_field_is_harmful(sample: Sample) -> None:
    def spreads(sample: Sample, files: InMemory) -> Written:
        core: Any = sample.made(type(sample.parts("core-1.img")[0]))  # type: ignore[arg-type]
        core.tc.exit_code = len(files.content(FOLDER + "core-1.img"))
        return {"core-1.img": [join("core-1.img", [core])]}

    found = came(sample, spreads, COMM)
    assert found.verdict is Verdict.HARMFUL
    assert found.why == "TaskCoreEntry.exit_code changed"


def test_new_image_of_messages_that_were_not_changed_is_harmful(sample: Sample) -> None:
    added = Edit("creds-1.img", -1, (), "file", join("creds-1.img", sample.absent["creds-1.img"]))
    assert came(sample, passes, added).verdict is Verdict.HARMFUL


def test_raw_bytes_that_differ_are_told_from_those_that_do_not(sample: Sample) -> None:
    honest = sample.files[FOLDER + "pages-1.img"]
    same = Edit("pages-1.img", -1, (), "file", honest)
    assert came(sample, passes, same).verdict is Verdict.SAME
    other = Edit("pages-1.img", -1, (), "file", b"\xff" + honest[1:])
    assert came(sample, passes, other) == Outcome(Verdict.COMPARED, changed=("pages.raw raw",))


@pytest.mark.parametrize(("judge", "harmful"), [(passes, True), (empties, False)])
def test_campaign_counts_and_prints_what_is_harmful(sample: Sample, judge: Judge, harmful: bool) -> None:
    table = {message: dict.fromkeys(fields, equal("")) for message, fields in rules().items()}
    figures = Campaign([sample], judge, table, 1).run(150, processes=1)
    assert (figures.verdicts[Verdict.HARMFUL] > 0) is harmful
    assert figures.mutations == sum(figures.verdicts.values()) > 100
    assert any("--sample ordinary --try" in line for line in figures.details()) is harmful
    assert figures.lines(table)[1].startswith(f"mutations={figures.mutations} refused=0 ")


def test_processes_find_what_one_finds(sample: Sample) -> None:
    def run(processes: int) -> list[str]:
        figures = Campaign([sample], passes, rules(comm=equal("")), 1).run(300, processes=processes)
        return [*figures.details(), *figures.lines(rules())]

    assert run(2) == run(1)
