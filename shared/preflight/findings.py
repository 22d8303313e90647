"""What the rules here find: codes that never change their meaning, a level, one sentence each.

docs/check.md has them all. On a node those that fail are refusals, so docs/reasons.md has them too.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Area = Literal["checkpoint", "machine", "processor", "files", "network", "pod"]


class Level(enum.StrEnum):
    ok = "ok"
    note = "note"
    """A difference that does not stop a restore."""
    unknown = "unknown"
    """Could decide, and could not be looked at."""
    fails = "fails"


CODES: Final[dict[str, Level]] = {
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
    "LsmDiffers": Level.fails,
    "CpuSuffices": Level.ok,
    "CpuFeaturesMissing": Level.fails,
    "CpuStateDiffers": Level.fails,
    "CpuUnknown": Level.unknown,
    "CpuNeedsUnknown": Level.note,
    "FilesMatch": Level.ok,
    "FileMissing": Level.fails,
    "FileSizeDiffers": Level.fails,
    "FileModeDiffers": Level.fails,
    "BuildIdDiffers": Level.fails,
    "FilesOnVolumes": Level.note,
    "MemoryLimitTooLow": Level.fails,
}


@dataclass(frozen=True, slots=True)
class Finding:
    code: str
    level: Level
    area: Area
    sentence: str


def finding(code: str, area: Area, sentence: str) -> Finding:
    return Finding(code, CODES[code], area, sentence)


def listed(names: Sequence[str], most: int = 6) -> str:
    """``a, b and 3 more``."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
