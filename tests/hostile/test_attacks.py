"""Every attack is refused by the checks alone, with its own code; every twin is not."""

from __future__ import annotations

from pathlib import Path

import pytest

import tests.hostile.attacks  # noqa: F401  registers them
from shared.spec import RuntimeSpec
from tests.hostile.attack import ATTACKS, TWINS, Attack, Twin, Victim, to_be_refused
from tests.hostile.by_command import build_all
from tests.hostile.in_process import live_of, looks_like, outcome
from tests.hostile.nodes import Nodes
from tests.hostile.real_node import by_archive
from tests.hostile.rewriting import twins_of
from tests.hostile.victims import archives_of

BY_CHECKS = [attack for attack in to_be_refused(ATTACKS) if not attack.by_node]
HARMLESS = [attack for attack in ATTACKS if attack.harmless]


@pytest.fixture(scope="session")
def archives(hostile_nodes: Nodes) -> dict[Victim, Path]:
    return archives_of(hostile_nodes.victims)


@pytest.fixture(scope="session")
def live(archives: dict[Victim, Path]) -> dict[Victim, RuntimeSpec]:
    return {name: live_of(archive, user=name == "user") for name, archive in archives.items()}


@pytest.mark.parametrize("attack", BY_CHECKS, ids=lambda attack: f"{attack.victim}: {attack.name}")
def test_attack_is_refused_with_its_own_code(
    attack: Attack, archives: dict[Victim, Path], live: dict[Victim, RuntimeSpec], tmp_path: Path
) -> None:
    found = outcome(attack, archives[attack.victim], live[attack.victim], tmp_path)
    assert found.reason == attack.reason, found.sentence


@pytest.mark.parametrize("attack", HARMLESS, ids=lambda attack: f"{attack.victim}: {attack.name}")
def test_criu_gets_nothing_of_a_harmless_attack(
    attack: Attack, archives: dict[Victim, Path], live: dict[Victim, RuntimeSpec], tmp_path: Path
) -> None:
    found, honest = tmp_path / "forged", tmp_path / "honest"
    for folder in (found, honest):
        folder.mkdir()
    archive = archives[attack.victim]
    tried = outcome(attack, archive, live[attack.victim], found)
    assert tried.reason == "", tried.sentence
    assert tried.images == looks_like(attack, archive, live[attack.victim], honest).images
    assert tried.images


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_twin_is_not_refused(twin: Twin, archives: dict[Victim, Path], tmp_path: Path) -> None:
    archive = archives[twin.victim]
    found = outcome(twin, archive, live_of(archive, user=twin.victim == "user", pod=twin.pod), tmp_path)
    assert found.reason == "", found.sentence


def test_what_an_attack_rewrites_may_be_rewritten(
    archives: dict[Victim, Path], live: dict[Victim, RuntimeSpec], tmp_path: Path
) -> None:
    for number, each in enumerate(twins_of(ATTACKS, archives)):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = outcome(each, archives[each.victim], live[each.victim], folder)
        assert found.reason == "", f"{each.name}: {found.sentence}"


def test_archives_are_refused_or_built_by_the_command_and_leave_nothing(
    archives: dict[Victim, Path], tmp_path: Path
) -> None:
    report = build_all(by_archive(ATTACKS), by_archive(TWINS), archives, tmp_path / "build")
    assert report.attacks > 20
    assert report.twins > 5
    assert report.accepted == []
    assert report.effects == []
    assert report.twins_refused == []


@pytest.mark.parametrize("victim", ["ordinary", "restricted", "mounted", "user"])
def test_victim_itself_is_not_refused(
    victim: Victim, archives: dict[Victim, Path], live: dict[Victim, RuntimeSpec], tmp_path: Path
) -> None:
    found = outcome(Twin("itself", lambda forgery: None, victim), archives[victim], live[victim], tmp_path)
    assert found.reason == "", found.sentence


def test_there_are_as_many_attacks_as_promised() -> None:
    assert len(ATTACKS) >= 200
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    assert len({attack.reason for attack in BY_CHECKS}) >= 35
