"""What an attack is: a name, what it does to a checkpoint, the pod that restores it, and how it must be refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tests.hostile.forgery import Forgery

Victim = Literal["ordinary", "restricted", "mounted", "user", "sink", "administrator", "sink-user"]
"""Which real checkpoint is forged, and which pod restores it: tests/hostile/victims.py, generator/kitchen_sink.py."""
AS_USER: Final[Mapping[Victim, Victim]] = {"user": "ordinary", "sink-user": "sink"}
"""Victims that run as another user than root: each is the dump of another victim, made one of that user."""
Route = Literal["image", "archive"]
"""How it reaches us: as a layer that the runtime unpacked, or as a file that a user hands to ``build``."""
Change = Callable[[Forgery], None]


@dataclass(frozen=True, slots=True)
class Attack:
    name: str
    reason: str
    """Stable code of the refusal."""
    change: Change
    victim: Victim = "ordinary"
    route: Route = "image"
    by_node: bool = False
    """Whether only the node's own store can tell."""
    harmless: bool = False
    """Nothing is refused (``reason`` is empty), and what CRIU gets is, to the byte, what it gets of ``like``."""
    like: Change | None = None
    """Of a harmless one: the dump that CRIU seems to get, None: the victim itself."""

    def forge(self, forgery: Forgery) -> None:
        self.change(forgery)


@dataclass(frozen=True, slots=True)
class Twin:
    """A benign checkpoint that looks like an attack: it must restore."""

    name: str
    change: Change
    victim: Victim = "ordinary"
    proof: str = ""
    """A shell script that succeeds in the restored container."""
    pod: Mapping[str, Any] = field(default_factory=dict)
    """What the restoring pod's container has beside the victim's: fields of ContainerSpec."""
    route: Route = "image"
    unheard: tuple[str, ...] = ()
    """Texts of the archive that an attacker would hope to find in the live container's config.json."""

    def forge(self, forgery: Forgery) -> None:
        self.change(forgery)


ATTACKS: Final[list[Attack]] = []
TWINS: Final[list[Twin]] = []


def attack(name: str, reason: str, victim: Victim = "ordinary", route: Route = "image") -> Callable[[Change], Change]:
    """Registers the function below as an attack."""

    def register(change: Change) -> Change:
        add(name, reason, change, victim, route)
        return change

    return register


def add(
    name: str,
    reason: str,
    change: Change,
    victim: Victim = "ordinary",
    route: Route = "image",
    by_node: bool = False,
) -> None:
    """Registers one attack of a family."""
    assert all(each.name != name for each in ATTACKS), f"two attacks are called {name}"
    ATTACKS.append(Attack(name, reason, change, victim, route, by_node))


def add_harmless(name: str, change: Change, victim: Victim = "ordinary", like: Change | None = None) -> None:
    """Registers an attack that CRIU never gets to see."""
    assert all(each.name != name for each in ATTACKS), f"two attacks are called {name}"
    ATTACKS.append(Attack(name, "", change, victim, harmless=True, like=like))


def to_be_refused(attacks: Iterable[Attack]) -> list[Attack]:
    return [each for each in attacks if not each.harmless]


def to_be_restored(attacks: Iterable[Attack]) -> list[Twin]:
    """The harmless attacks, as what has to restore on a node; not those that are compared with another forgery."""
    return [
        Twin(each.name, each.change, each.victim, route=each.route)
        for each in attacks
        if each.harmless and each.like is None
    ]


def twin(
    name: str,
    victim: Victim = "ordinary",
    proof: str = "",
    route: Route = "image",
    unheard: tuple[str, ...] = (),
) -> Callable[[Change], Change]:
    """Registers the function below as a benign twin."""

    def register(change: Change) -> Change:
        TWINS.append(Twin(name, change, victim, proof, route=route, unheard=unheard))
        return change

    return register
