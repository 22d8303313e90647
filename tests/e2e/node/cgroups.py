"""Each machine's own cgroup in every hierarchy of the host, the root of its cgroup namespace."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.node.waiting import LIMIT_S

MOUNTS: Final = Path("/sys/fs/cgroup")
PREFIX: Final = "nri-restore-"


@dataclass(frozen=True)
class Hierarchy:
    folder: Path
    """Where the host has it mounted."""
    options: str
    """Mount options that name it; empty for version 2."""


def hierarchies() -> list[Hierarchy]:
    """All mounted cgroup hierarchies of the host, from /proc/self/mountinfo (proc(5))."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, filesystem = line.partition(" - ")
        kind, _, options = filesystem.split(" ")[:3]
        folder = Path(place.split(" ")[4])
        if kind == "cgroup":
            names = [
                word for word in options.split(",") if word not in {"rw", "ro"} and not word.startswith("release_")
            ]
            found.append(Hierarchy(folder, ",".join(names)))
        elif kind == "cgroup2":
            found.append(Hierarchy(folder, ""))
    return found


def folders(name: str) -> list[Path]:
    """The machine's cgroup in each hierarchy, as the host sees it; they need not exist."""
    return [hierarchy.folder / f"{PREFIX}{name}" for hierarchy in hierarchies()]


def create(name: str) -> list[Path]:
    """Makes the machine's cgroups; returns those a process joins to be in the machine.

    Version 2 allows no processes in a group that has limited children, so they go into a leaf there.
    """
    joined = []
    everything = hierarchies()
    only_v2 = all(not hierarchy.options for hierarchy in everything)
    for hierarchy in everything:
        group = hierarchy.folder / f"{PREFIX}{name}"
        group.mkdir()
        for file in ("cpuset.cpus", "cpuset.mems"):
            # Empty in a new version-1 group, and nothing can join it then.
            if (group / file).exists() and hierarchy.options != "":
                (group / file).write_text((hierarchy.folder / file).read_text())
        if only_v2:
            for parent in (hierarchy.folder, group):
                _enable_controllers(parent)
            leaf = group / "init"
            leaf.mkdir()
            joined.append(leaf)
        else:
            joined.append(group)
    return joined


def _enable_controllers(group: Path) -> None:
    for controller in (group / "cgroup.controllers").read_text().split():
        try:
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            continue  # bound elsewhere, or realtime processes forbid it; the machine runs without it


def processes(name: str) -> set[int]:
    """Host process ids of everything in the machine's cgroups."""
    found = set()
    for group in folders(name):
        for file in group.rglob("cgroup.procs"):
            try:
                found |= {int(word) for word in file.read_text().split()}
            except OSError:
                continue  # the group went away meanwhile
    return found


def remove(name: str, *, limit_s: float = LIMIT_S) -> None:
    """Kills what is still in the machine's cgroups and removes them.

    Raises TimeoutError naming what stays after ``limit_s`` seconds.
    """
    deadline = time.monotonic() + limit_s
    while True:
        for process in processes(name) - {os.getpid()}:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        left = [group for group in folders(name) if not _removed(group)]
        if not left:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"cgroups stay: {', '.join(map(str, left))}; processes {sorted(processes(name))}")
        time.sleep(0.02)


def _removed(group: Path) -> bool:
    for folder, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(folder)  # noqa: PTH106 (a cgroup's files go with it)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True
