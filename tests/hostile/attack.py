"""What an attack is: a name, what it does to a checkpoint, the pod that restores it, and how it must be refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tests.hostile.forgery import Forgery

Victim = Literal["ordinary", "restricted", "mounted", "user"]
"""Which real checkpoint is forged, and which pod restores it: tests/hostile/victims.py."""
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
    """Nothing is refused (``reason`` is empty), and what CRIU gets is the unforged dump's to the byte."""

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


def harmless(name: str, victim: Victim = "ordinary") -> Callable[[Change], Change]:
    """Registers the function below as an attack that CRIU never gets to see."""

    def register(change: Change) -> Change:
        add_harmless(name, change, victim)
        return change

    return register


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


def add_harmless(name: str, change: Change, victim: Victim = "ordinary") -> None:
    """Registers one of a family of attacks that CRIU never gets to see."""
    assert all(each.name != name for each in ATTACKS), f"two attacks are called {name}"
    ATTACKS.append(Attack(name, "", change, victim, harmless=True))


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
