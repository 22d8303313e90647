"""All attacks on one node, and their twins: what ``make hostile`` and the tests run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.e2e.node.kubelet import Kubelet
from tests.e2e.node.node import Node
from tests.e2e.restoring import KEEPS_NOTHING, Taken, have, with_daemon
from tests.hostile.attack import Attack, Twin, Victim
from tests.hostile.by_command import ByCommand
from tests.hostile.node_checks import Condition, memory_bytes
from tests.hostile.real_node import OURS, Battle, Tried, refused_as

CONFIG = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/{}/config.json"
"""What the OCI runtime was given."""
REGISTRIES = [OURS.rstrip("/"), "localhost:5000"]
"""Where forged images and the victims' base image are from."""


@dataclass
class Report:
    """How it ended, as sentences; empty lists are what is wanted."""

    attacks: int = 0
    accepted: list[str] = field(default_factory=list)
    """Attacks that were not refused with their own code before CRIU ran."""
    effects: list[str] = field(default_factory=list)
    twins: int = 0
    twins_refused: list[str] = field(default_factory=list)
    seconds: float = 0.0
    slowest: float = 0.0
    memory_bytes: int = 0

    def add(self, built: ByCommand) -> None:
        """What came of the attacks on a user's machine."""
        self.attacks += built.attacks
        self.accepted += built.accepted
        self.effects += built.effects
        self.twins += built.twins
        self.twins_refused += built.twins_refused

    def line(self) -> str:
        return (
            f"attacks={self.attacks} refused={self.attacks - len(self.accepted)} accepted={len(self.accepted)} "
            f"host_effects={len(self.effects)} benign={self.twins} benign_refused={len(self.twins_refused)}"
        )


def fight(
    node: Node,
    victims: Mapping[Victim, Taken],
    attacks: Sequence[Attack],
    twins: Sequence[Twin],
    *,
    refused: Callable[[Tried, str], bool] = refused_as,
) -> Report:
    """Tries every attack, then every twin, on a node of its own; leaves the node as it was."""
    report = Report(len(attacks), twins=len(twins))
    for taken in victims.values():
        have(node, taken.base)
    with_daemon(node, KEEPS_NOTHING + f"[policy]\nregistries = {REGISTRIES}\n")
    battle = Battle(Kubelet(node), victims)
    battle.prepare()
    try:
        images = list(battle.images([*attacks, *twins]))
        before = Condition.of(node)
        began = time.monotonic()
        for number, (each, image) in enumerate(images):
            if isinstance(each, Attack):
                _attack(battle, report, each, image, f"attack-{number}", refused)
        report.seconds = time.monotonic() - began
        report.effects += before.effects(node)
        for number, (each, image) in enumerate(images):
            if isinstance(each, Twin):
                _twin(battle, report, each, image, f"twin-{number}")
        report.effects += before.effects(node)
        report.memory_bytes = memory_bytes(node)
    finally:
        battle.kubelet.remove_all()
        node.ctr("images", "rm", *(name for name in node.ctr("images", "ls", "-q").split() if name.startswith(OURS)))
    return report


def _attack(
    battle: Battle, report: Report, attack: Attack, image: str, name: str, refused: Callable[[Tried, str], bool]
) -> None:
    tried, container = battle.try_out(attack, image, name)
    report.slowest = max(report.slowest, tried.seconds)
    if container is not None or not refused(tried, attack.reason):
        report.accepted.append(f"{attack.name} ({attack.victim}): {tried.details or 'it runs'}, not {attack.reason}")
    if container is not None:
        battle.end(container)


def _twin(battle: Battle, report: Report, twin: Twin, image: str, name: str) -> None:
    tried, container = battle.try_out(twin, image, name)
    if container is None:
        report.twins_refused.append(f"{twin.name}: {tried.details}")
        return
    try:
        seen = len(container.logs())
        container.wait_for(lambda each: len(each.logs()) > seen, "the counter to go on")
        given = battle.node.path(CONFIG.format(container.id)).read_text()
        if heard := [text for text in twin.unheard if text in given]:
            report.twins_refused.append(f"{twin.name}: the live container was given {', '.join(heard)}")
        if twin.proof and (done := container.exec("sh", "-c", twin.proof)).exit_code:
            report.twins_refused.append(f"{twin.name}: {twin.proof} fails: {done.stderr or done.stdout}")
    except AssertionError as error:
        report.twins_refused.append(f"{twin.name}: {error}")
    battle.end(container)
