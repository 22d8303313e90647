"""Which files the restored processes may have open only where a user of theirs may open them.

CRIU opens every file as root with all capabilities, and only then takes the dumped users (criu/files-reg.c,
do_open_reg). What lies on a volume, or is the kernel's, is not the checkpoint's own, so it may be what the pod's users
must not read or write. Whether they may is for the kernel to say, on the node, with the file there
(nri_plugin/restore/cover.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shared.criu.capabilities import NAMES
from shared.criu.dump import Dump
from shared.criu.open_files import RegularFile
from shared.criu.tasks import Credentials
from shared.judge.paths import may_mount, spelt_once
from shared.spec import RuntimeSpec

IDENTITIES_MAX: Final = 64
GROUPS_MAX: Final = 1024
"""Identities beyond these open nothing: only a forged dump has so many."""
_ANY_FILE, _ANY_READING = "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"


_OF_THE_KERNEL: Final = frozenset({"proc", "sysfs", "mqueue", "cgroup", "cgroup2"})
"""File systems that hold nothing of the checkpoint: some files there are root's, some other containers'."""


@dataclass(frozen=True, slots=True)
class FileUser:
    """As whom a file may have been opened."""

    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    paths: tuple[str, ...] = ()
    users: tuple[FileUser, ...] = ()
    capabilities: int = 0
    """As a mask: what each of them could have had of those that open files."""


def to_judge(dump: Dump, live: RuntimeSpec) -> Judged:
    """Nothing where a process of the live container could have had CAP_DAC_OVERRIDE, or may mount.

    An entry point of root that opens files and goes on as another user is common, and leaves no trace in a dump.
    """
    if within_reach(_ANY_FILE, live) or may_mount(live):
        return Judged()
    theirs = (mount for mount in dump.mounts if mount.external is not None or mount.fstype in _OF_THE_KERNEL)
    places = {spelt_once(mount.mountpoint) for mount in theirs} - {"/"}
    paths = {
        file.path
        for file in dump.files
        if isinstance(file, RegularFile)
        and any(f"{spelt_once(file.path)}/".startswith(f"{place}/") for place in places)
        and not _of_an_ended_process(file.path, dump)
    }
    paths.discard(live.cwd)  # the runtime enters it with its own rights
    searches = 1 << NAMES.index(_ANY_READING) if within_reach(_ANY_READING, live) else 0
    return Judged(tuple(sorted(paths)), users_of(dump, live), searches) if paths else Judged()


def _of_an_ended_process(path: str, dump: Dump) -> bool:
    """Nothing can be read of it, and it has no path any more (judge/open_files.py, ``_own_processes``)."""
    parts = path.split("/")
    return parts[1:2] == ["proc"] and any(each.isdecimal() and int(each) in dump.ended for each in parts[2:3])


def within_reach(capability: str, live: RuntimeSpec) -> bool:
    """Whether a process of the live container could have it.

    Root has it from the start; others by ambient capabilities, a setuid program or file capabilities.
    """
    sets = live.capabilities
    return capability in sets.bounding and (live.uid == 0 or capability in sets.ambient or not live.no_new_privileges)


def users_of(dump: Dump, live: RuntimeSpec) -> tuple[FileUser, ...]:
    """The live container's own, and all that threads of the dump are or may change to."""
    found = {FileUser(live.uid, live.gid, live.additional_gids): None}
    for task in dump.tasks:
        for thread in task.threads:
            for user in _of_thread(thread.credentials):
                if len(found) < IDENTITIES_MAX and len(user.groups) <= GROUPS_MAX:
                    found[user] = None
    return tuple(found)


def _of_thread(its: Credentials) -> Iterator[FileUser]:
    for uid, gid in ((its.fsuid, its.fsgid), (its.euid, its.egid), (its.uid, its.gid), (its.suid, its.sgid)):
        yield FileUser(uid, gid, its.groups)
