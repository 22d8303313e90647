"""What CRIU does to files of volumes as root, beside opening them: deleted ones are made again, others are watched, and
FIFOs get what was in them.

It must be what some user of the container could have done. Whether so is for the kernel to say, on the node, with the
volume there, before CRIU runs (nri_plugin/restore/volume_files.py): a file that was there for a moment, and a watch,
are not seen afterwards. Sources: criu/files-reg.c (create_ghost, rfi_remap), inotify_add_watch(2).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shared.criu.capabilities import NAMES
from shared.criu.dump import Dump
from shared.criu.open_files import RegularFile
from shared.judge.file_rights import FileUser, users_of, within_reach
from shared.judge.paths import is_bind, may_mount
from shared.judge.pipes import filled_fifos
from shared.judge.places import watches
from shared.judge.socket_places import innermost, live_mounts, resolved
from shared.spec import RuntimeSpec

_ANY_FILE, _ANY_READING = "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"


class Deed(enum.Enum):
    """What CRIU does."""

    MAKE = "makes a file"
    """Beside the path, in a directory that is there; it is removed again."""
    WATCH = "watches"
    """The path itself, which takes the right to read it."""
    FILL = "writes into"
    """The path itself, a FIFO, before the processes can be looked at (criu/fifo.c, do_open_fifo)."""


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """A path on a volume that CRIU changes or watches."""

    deed: Deed
    path: str
    """In the container."""
    volume: str
    """Where the live mount is that it is on …"""
    source: str
    """… and what of the node that mount shows."""
    users: tuple[FileUser, ...]
    """One of them must be able to do the same."""
    capabilities: int
    """As a mask: what each of them could have had of those that matter here."""


_DEEDS: Final = {Deed.MAKE: (_ANY_FILE,), Deed.WATCH: (_ANY_FILE, _ANY_READING), Deed.FILL: (_ANY_FILE,)}
"""What makes asking needless."""


def volume_files(dump: Dump, live: RuntimeSpec) -> tuple[VolumeFile, ...]:
    """Nothing where a process of the live container may do it anyway, or may mount."""
    if may_mount(live):
        return ()
    searches = 1 << NAMES.index(_ANY_READING) if within_reach(_ANY_READING, live) else 0
    users: tuple[FileUser, ...] = ()
    mounts = live_mounts(dump, live)
    found: dict[VolumeFile, None] = {}
    for deed, path in _paths(dump):
        point = innermost(mounts, resolved(path))
        mount = mounts.get(point)
        if mount is None or not is_bind(mount.type, mount.options):
            continue
        if any(within_reach(capability, live) for capability in _DEEDS[deed]):
            continue
        users = users or users_of(dump, live)
        found[VolumeFile(deed, path, point, mount.source, users, searches)] = None
    return tuple(found)


def _paths(dump: Dump) -> Iterator[tuple[Deed, str]]:
    for file in dump.files:
        if isinstance(file, RegularFile) and file.id in dump.remapped:
            yield Deed.MAKE, file.path
    for watch in watches(dump):
        yield Deed.WATCH, watch.path
    for path in filled_fifos(dump.source):
        yield Deed.FILL, path
