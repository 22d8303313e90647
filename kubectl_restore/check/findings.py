"""What `check` found: codes that never change their meaning, a level, one sentence each. docs/check.md has them all.

A finding of the node's own rules keeps the rule's code (shared/compare); those are listed there.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

KIND: Final = "CheckpointCheck"

Area = Literal["checkpoint", "machine", "processor", "files", "network", "pod"]


class Level(enum.StrEnum):
    ok = "ok"
    note = "note"
    """A difference that does not stop a restore."""
    unknown = "unknown"
    """Could decide, and could not be looked at."""
    fails = "fails"


CODES: Final[dict[str, Level]] = {
    "CheckpointWhole": Level.ok,
    "CheckpointDamaged": Level.fails,
    "CriuPluginNeeded": Level.unknown,
    "NotLinux": Level.fails,
    "ArchitectureSame": Level.ok,
    "ArchitectureDiffers": Level.fails,
    "ArchitectureUnknown": Level.unknown,
    "KernelNewEnough": Level.ok,
    "KernelOlder": Level.note,
    "KernelFeatureMissing": Level.fails,
    "KernelUnknown": Level.note,
    "CgroupVersionDiffers": Level.fails,
    "CgroupVersionUnknown": Level.unknown,
    "CriuNewEnough": Level.ok,
    "CriuNotRecorded": Level.note,
    "CriuTooOld": Level.fails,
    "CriuMissing": Level.fails,
    "CriuUnknown": Level.unknown,
    "CpuSuffices": Level.ok,
    "CpuFeaturesMissing": Level.fails,
    "CpuUnknown": Level.unknown,
    "CpuNeedsUnknown": Level.note,
    "FilesMatch": Level.ok,
    "FileMissing": Level.fails,
    "FileSizeDiffers": Level.fails,
    "FileModeDiffers": Level.fails,
    "BuildIdDiffers": Level.fails,
    "BaseUnreadable": Level.unknown,
    "BaseNotChecked": Level.note,
    "BaseDoubtful": Level.note,
    "FilesOnVolumes": Level.note,
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
"""Level of each code of our own."""


@dataclass(frozen=True, slots=True)
class Finding:
    code: str
    level: Level
    area: Area
    sentence: str


@dataclass(frozen=True, slots=True)
class Report:
    """The schema of ``-o json`` and ``-o yaml``."""

    checkpoint: str
    against: str
    """The machine's name, or the node's."""
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


def listed(names: Sequence[str], most: int = 6) -> str:
    """``a, b and 3 more``."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
