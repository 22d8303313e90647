"""Every attack is refused by the checks alone, with its own code; every twin is not."""

from __future__ import annotations

from pathlib import Path

import pytest

import tests.hostile.attacks  # noqa: F401  registers them
from shared.spec import RuntimeSpec
from tests.hostile.attack import ATTACKS, TWINS, Attack, Twin, Victim
from tests.hostile.in_process import live_of, outcome
from tests.hostile.nodes import Nodes

BY_CHECKS = [attack for attack in ATTACKS if not attack.by_node]


@pytest.fixture(scope="session")
def archives(hostile_nodes: Nodes) -> dict[Victim, Path]:
    found = {name: taken.archive for name, taken in hostile_nodes.victims.items()}
    return {**found, "user": found["ordinary"]}


@pytest.fixture(scope="session")
def live(archives: dict[Victim, Path]) -> dict[Victim, RuntimeSpec]:
    return {name: live_of(archive, user=name == "user") for name, archive in archives.items()}


@pytest.mark.parametrize("attack", BY_CHECKS, ids=lambda attack: f"{attack.victim}: {attack.name}")
def test_attack_is_refused_with_its_own_code(
    attack: Attack, archives: dict[Victim, Path], live: dict[Victim, RuntimeSpec], tmp_path: Path
) -> None:
    found = outcome(attack, archives[attack.victim], live[attack.victim], tmp_path)
    assert found.reason == attack.reason, found.sentence


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_twin_is_not_refused(
    twin: Twin, archives: dict[Victim, Path], live: dict[Victim, RuntimeSpec], tmp_path: Path
) -> None:
    found = outcome(twin, archives[twin.victim], live[twin.victim], tmp_path)
    assert found.reason == "", found.sentence


@pytest.mark.parametrize("victim", ["ordinary", "restricted", "mounted", "user"])
def test_victim_itself_is_not_refused(
    victim: Victim, archives: dict[Victim, Path], live: dict[Victim, RuntimeSpec], tmp_path: Path
) -> None:
    found = outcome(Twin("itself", lambda forgery: None, victim), archives[victim], live[victim], tmp_path)
    assert found.reason == "", found.sentence


def test_there_are_as_many_attacks_as_promised() -> None:
    assert len(ATTACKS) >= 200
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    assert len({attack.reason for attack in ATTACKS}) >= 35
