"""Mutations that nothing refused, restored on a real node among canaries: the node must stay as it was.

What runs must also have no more rights than the honest twin has there: who the processes are, what they may do, and
what is mounted.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tests.e2e.node.cri import CriError
from tests.e2e.node.kubelet import Container, Kubelet
from tests.e2e.node.node import Node
from tests.e2e.restoring import KEEPS_NOTHING, Taken, have, with_daemon
from tests.hostile.attack import AS_USER, Twin, Victim
from tests.hostile.battle import REGISTRIES
from tests.hostile.canaries import Canaries, different
from tests.hostile.generator.campaign import Made
from tests.hostile.generator.edits import apply
from tests.hostile.generator.sample import Sample, twin
from tests.hostile.node_checks import Condition
from tests.hostile.real_node import Battle, Tried
from tests.hostile.users import USER

_RIGHTS: Final = (
    "for each in /proc/[0-9]*/status; do "
    "grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' $each | tr -s '\\t\\n ' ' '; "
    "echo; done"
)
_MOUNTS: Final = "cut -d' ' -f4-6 /proc/1/mountinfo"
_CHANGING: Final = re.compile(r"[0-9a-f]{64}|[0-9a-f-]{36}|/snapshots/\d+/")


@dataclass
class Restored:
    """How it ended, as sentences; empty lists are what is wanted."""

    tried: int = 0
    ran: int = 0
    failed: int = 0
    """Refused by the daemon after all, or given up by CRIU."""
    effects: list[str] = field(default_factory=list)
    honest_refused: list[str] = field(default_factory=list)
    why_failed: list[str] = field(default_factory=list)

    def line(self) -> str:
        return f"restored={self.tried} ran={self.ran} failed={self.failed} effects={len(self.effects)}"


def chosen(accepted: Sequence[Made], count: int, seed: int) -> list[Made]:
    """Some of them at random, those of the checkpoints in turn."""
    chance = random.Random(seed)
    by_sample: dict[Victim, list[Made]] = {}
    for made in chance.sample(list(accepted), len(accepted)):
        by_sample.setdefault(made.sample, []).append(made)
    found: list[Made] = []
    while len(found) < count and any(by_sample.values()):
        found += [each.pop() for each in by_sample.values() if each]
    return found[:count]


def restore(
    node: Node, victims: Mapping[Victim, Taken], samples: Mapping[Victim, Sample], mutations: Sequence[Made]
) -> Restored:
    """Restores every mutation, each after its honest twin was; leaves the node as it was."""
    report = Restored()
    names = list(dict.fromkeys(made.sample for made in mutations))
    for name in names:
        have(node, victims[AS_USER.get(name, name)].base)
    with_daemon(node, KEEPS_NOTHING + f"[policy]\nregistries = {REGISTRIES}\n")
    kubelet = Kubelet(node)
    condition = Condition.of(node)
    ground = _Ground(Battle(kubelet, victims), Canaries(kubelet), report)
    try:
        ground.canaries.lay_out(victims[AS_USER.get(names[0], names[0])].base if names else "")
        allowed = {name: ground.honest(name) for name in names}
        for made in mutations:
            ground.mutation(samples[made.sample], made, allowed[made.sample])
    finally:
        ground.canaries.close()
        kubelet.remove_all()
    report.effects += condition.effects(node)
    return report


@dataclass
class _Ground:
    """Where the restores are: each in a pod of its own, for what is in a pod's namespaces outlives its containers."""

    battle: Battle
    canaries: Canaries
    report: Restored

    def honest(self, name: Victim) -> set[str]:
        """Restores the checkpoint as it is: what its processes are allowed to be."""
        tried, rights, effects = self._restored(Twin("itself", lambda forgery: None, name))
        if rights is None:
            self.report.honest_refused.append(f"{name}: {tried.details}")
        self.report.effects += [f"{name} itself: {each}" for each in effects]
        return rights or set()

    def mutation(self, sample: Sample, made: Made, allowed: set[str]) -> None:
        self.report.tried += 1
        tried, rights, effects = self._restored(twin(f"{made.number}", made.sample, apply(sample, made.edits).files))
        self.report.effects += [f"{made}: {each}" for each in effects]
        if rights is None:
            self.report.failed += 1
            self.report.why_failed.append(f"{made}: {tried.details[:300]}")
            return
        self.report.ran += 1
        self.report.effects += [f"{made}: it has {each}" for each in sorted(rights - allowed)]

    def _restored(self, twin: Twin) -> tuple[Tried, set[str] | None, list[str]]:
        """Restores it and ends it: what its processes were, None when it did not run; and what else is different."""
        battle = self.battle
        battle.prepare([twin.victim])
        pod = battle.pods.pop(twin.victim)
        self.canaries.put_into(pod, owner=USER if twin.victim in AS_USER else 0)
        ((_, image),) = battle.images([twin])
        before = self.canaries.look(pod)
        battle.pods[twin.victim] = pod
        tried, container = battle.try_out(twin, image, "counter")
        rights = None
        if container is not None:
            try:
                rights = _rights(container)
            except (AssertionError, CriError) as error:
                tried = replace(tried, details=f"it ran and ended: {error}")
        after = self.canaries.look(pod)
        pod.remove(grace_s=0)
        battle.kubelet.pods.remove(pod)
        battle.node.cri.remove_image(image)
        return tried, rights, different(before, after)


def _rights(container: Container) -> set[str]:
    processes = [line.strip() for line in container.sh(_RIGHTS).splitlines() if line.strip()]
    mounts = [_CHANGING.sub("*", f"the mount {line}") for line in container.sh(_MOUNTS).splitlines()]
    return {*processes, *mounts}
