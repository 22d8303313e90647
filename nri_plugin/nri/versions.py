"""Which NRI a runtime has, and what that NRI knows.

Sources: go.mod of the runtimes' tags; containerd/nri ``pkg/api/version.go`` (the runtime's own table of the same),
``pkg/api/event.go`` (ValidEvents) and ``pkg/api/api.proto`` by tag.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from nri_plugin.nri.nri_pb2 import ContainerAdjustment, Event

Version: TypeAlias = tuple[int, int, int]

OLDEST: Final[Version] = (0, 2, 0)
"""First NRI with this protocol; assumed of a runtime that is not recognised."""

# First release of the runtime with that NRI, ascending. A runtime newer than the table has at least its last entry.
_CONTAINERD: Final[tuple[tuple[Version, Version], ...]] = (
    ((1, 7, 0), (0, 3, 0)),
    ((1, 7, 7), (0, 4, 0)),
    ((1, 7, 14), (0, 6, 0)),
    ((1, 7, 16), (0, 6, 1)),
    ((1, 7, 26), (0, 8, 0)),
    ((2, 2, 0), (0, 10, 0)),
    ((2, 2, 1), (0, 11, 0)),
    ((2, 3, 0), (0, 12, 0)),
    ((2, 4, 0), (0, 12, 1)),
)
_CRIO: Final[tuple[tuple[Version, Version], ...]] = (
    ((1, 26, 0), (0, 2, 0)),
    ((1, 26, 2), (0, 3, 0)),
    ((1, 29, 0), (0, 5, 0)),
    ((1, 29, 2), (0, 6, 0)),
    ((1, 31, 0), (0, 6, 1)),
    ((1, 32, 0), (0, 9, 0)),
    ((1, 34, 0), (0, 10, 0)),
    ((1, 35, 0), (0, 11, 0)),
)
_RUNTIMES: Final = {"containerd": _CONTAINERD, "cri-o": _CRIO}

# Highest event a runtime accepts: one bit more and it refuses the registration ("invalid plugin events").
_LAST_EVENT: Final[tuple[tuple[Version, int], ...]] = (
    ((0, 0, 0), Event.REMOVE_CONTAINER),
    ((0, 10, 0), Event.VALIDATE_CONTAINER_ADJUSTMENT),
)

# Fields of an adjustment that an older runtime would ignore without a word. The others are as old as OLDEST.
_FIELD_SINCE: Final[dict[str, Version]] = {
    "rlimits": (0, 4, 0),
    "CDI_devices": (0, 7, 0),
    "args": (0, 10, 0),
    "linux.oom_score_adj": (0, 7, 0),
    "linux.io_priority": (0, 10, 0),
    "linux.seccomp_policy": (0, 10, 0),
    "linux.namespaces": (0, 10, 0),
    "linux.sysctl": (0, 11, 0),
}

_NUMBERS: Final = re.compile(r"v?(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?")


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the runtime said about itself; ``nri`` is its NRI's version, ``request_timeout_s`` 0 when it did not say."""

    name: str
    version: str
    nri: Version
    request_timeout_s: float = 0.0


def nri_version(runtime_name: str, runtime_version: str, stated: str = "") -> Version:
    """Returns the NRI version: ``stated`` (NRI 0.12 and newer say it) when it is one, else by the runtime's release.

    Versions look like ``1.7.24~ds1`` (Debian), ``v2.2.0``, ``1.34.2``. What cannot be told is taken for OLDEST.
    """
    said = _numbers(stated)
    if said is not None and said >= OLDEST:
        return said
    release = _numbers(runtime_version)
    table = _RUNTIMES.get(runtime_name.lower())
    if release is None or table is None:
        return OLDEST
    position = bisect_right(table, release, key=lambda row: row[0])
    return table[position - 1][1] if position else OLDEST


def valid_mask(nri: Version) -> int:
    """Returns the event bits that this NRI accepts."""
    last = max(row for row in _LAST_EVENT if row[0] <= nri)[1]
    return (1 << last) - 1


def event_mask(wanted: Iterable[Event], nri: Version) -> int:
    """Returns the bits of those ``wanted`` events that this NRI knows.

    Raises ValueError when none is left: 0 would subscribe to every event.
    """
    mask = valid_mask(nri)
    bits = 0
    for event in wanted:
        if event > 0:
            bits |= 1 << (event - 1) & mask
    if not bits:
        raise ValueError("at least one event that the runtime knows must be subscribed to")
    return bits


def ignored_fields(adjustment: ContainerAdjustment, nri: Version) -> list[str]:
    """Returns the names of the fields set in ``adjustment`` that this NRI would ignore."""
    fields = [descriptor.name for descriptor, _ in adjustment.ListFields()]
    fields += [f"linux.{descriptor.name}" for descriptor, _ in adjustment.linux.ListFields()]
    return [field for field in fields if nri < _FIELD_SINCE.get(field, OLDEST)]


def _numbers(version: str) -> Version | None:
    match = _NUMBERS.match(version)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3] or 0))
