"""What each reason code means and asks for, from docs/reasons.md, which lies beside this module (here as a link)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

DOCUMENTATION: Final = "docs/reasons.md"
PASSING: Final = frozenset(
    {
        "AnswerLate",
        "AnsweredTooLate",
        "ContainerNotCreated",
        "NriInterrupted",
        "NriStopping",
        "PreparationLost",
        "RuntimeSlow",
        "StillPreparing",
        "WorkerLost",
    }
)
"""After these nobody has to do anything: the kubelet's next attempt goes on from there."""


@dataclass(frozen=True)
class Reason:
    meaning: str
    remedy: str


def reason(code: str) -> Reason | None:
    """None for a code that this version does not know."""
    return _known().get(code)


@cache
def _known() -> dict[str, Reason]:
    found = {}
    for line in Path(__file__).with_name("reasons.md").read_text(encoding="utf-8").splitlines():
        cells = [each.strip() for each in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0].startswith("`"):
            found[cells[0].strip("`")] = Reason(cells[1], cells[2])
    return found
