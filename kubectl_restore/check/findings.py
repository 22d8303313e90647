"""What `check` found: codes that never change their meaning, a level, one sentence each. docs/check.md has them all.

A finding of the node's own rules keeps the rule's code (shared/judge); those are listed there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shared.preflight import findings as preflight
from shared.preflight.findings import Area, Finding, Level

KIND: Final = "CheckpointCheck"

CODES: Final[dict[str, Level]] = {
    **preflight.CODES,
    "CheckpointWhole": Level.ok,
    "CheckpointDamaged": Level.fails,
    "CriuPluginNeeded": Level.unknown,
    "NotLinux": Level.fails,
    "MachineNotChecked": Level.note,
    "BaseUnreadable": Level.unknown,
    "BaseNotChecked": Level.note,
    "BaseDoubtful": Level.note,
    "BoundToPodIp": Level.fails,
    "TcpConnections": Level.note,
    "FileLocks": Level.note,
    "TerminalNeeded": Level.note,
    "MountsNeeded": Level.note,
    "LsmProfile": Level.note,
    "PodFits": Level.ok,
    "HandlerMissing": Level.fails,
    "HandlerUnknown": Level.note,
    "FileLocksRefused": Level.fails,
    "TcpEstablished": Level.fails,
    "BaseImageDiffers": Level.fails,
    "WillBeMissing": Level.note,
}
"""Level of each code of this command's own and of the rules that nodes have too."""


@dataclass(frozen=True, slots=True)
class Report:
    """The schema of ``-o json`` and ``-o yaml``."""

    checkpoint: str
    against: str
    """The machine's or node's name; the pod where no machine is judged."""
    verdict: str
    """``would restore``, ``would fail`` or ``could not tell``."""
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        return {"would restore": 0, "would fail": 1, "could not tell": 2}[self.verdict]


def finding(code: str, area: Area, sentence: str) -> Finding:
    return Finding(code, CODES[code], area, sentence)


def report_of(checkpoint: str, against: str, findings: Iterable[Finding]) -> Report:
    """The worst level decides; findings that matter most come first."""
    order = [Level.fails, Level.unknown, Level.note, Level.ok]
    found = tuple(sorted(findings, key=lambda each: order.index(each.level)))
    levels = {each.level for each in found}
    verdict = "would restore"
    if Level.fails in levels:
        verdict = "would fail"
    elif Level.unknown in levels:
        verdict = "could not tell"
    return Report(checkpoint, against, verdict, found)
