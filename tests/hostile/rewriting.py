"""The benign twins that attacks have by what they rewrite: the same files taken apart and put together, unforged.

An attack must be refused for what it says, not because somebody wrote the file anew. Attacks that rewrite the same
files of the same checkpoint share a twin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.attack import Attack, Twin, Victim
from tests.hostile.forgery import Forgery
from tests.hostile.in_process import forged
from tests.support.checkpoints import member


@dataclass(frozen=True)
class Rewriting:
    """What an attack touches, whatever it puts there."""

    victim: Victim
    files: frozenset[str]
    more_members: bool

    @classmethod
    def by(cls, attack: Attack, archive: Path) -> Rewriting:
        forgery = forged(attack, archive)
        return cls(attack.victim, frozenset(forgery.rewritten & forgery.files.keys()), bool(forgery.extra))

    def twin(self) -> Twin:
        files = ", ".join(name.removeprefix("checkpoint/") for name in sorted(self.files)) or "nothing"
        return Twin(
            f"{files} rewritten{' and a file added' * self.more_members}, {self.victim}", self._apply, self.victim
        )

    def _apply(self, forgery: Forgery) -> None:
        for name in self.files:
            if name == "rootfs-diff.tar":
                forgery.diff([])
            elif name.startswith("checkpoint/tmpfs-dev-"):
                forgery.tmpfs("/dev", [])
            elif name.startswith("checkpoint/pages-"):
                forgery.raw(name.removeprefix("checkpoint/"), forgery.files[name])
            elif name.endswith(".img"):
                forgery.image(name.removeprefix("checkpoint/"))
            else:
                forgery.json(name, lambda document: None)
        if self.more_members:
            forgery.extra.append(member("notes", b"x"))


def twins_of(attacks: Iterable[Attack], archives: Mapping[Victim, Path]) -> list[Twin]:
    """One twin for everything that the attacks by image rewrite, in the order of the attacks."""
    found = dict.fromkeys(
        Rewriting.by(attack, archives[attack.victim]) for attack in attacks if attack.route == "image"
    )
    return [each.twin() for each in found]
