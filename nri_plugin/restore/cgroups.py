"""Which cgroups this node has, and the options of its cgroup2 file system.

CRIU mounts one in the restored container. Where it does so in the node's own cgroup namespace, the options that it is
given become the node's (linux kernel/cgroup/cgroup.c, cgroup_get_tree), so they must be what they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_KNOWN: Final = frozenset({
    "nsdelegate", "favordynmods", "memory_localevents", "memory_recursiveprot", "memory_hugetlb_accounting",
    "pids_localevents",
})  # fmt: skip


def hierarchies(groups: Path = Path("/proc/self/cgroup")) -> tuple[str, ...]:
    """Those of version 1, by what mount(2) takes them by. Source: cgroups(7)."""
    found = (line.split(":", 2)[1] for line in groups.read_text().splitlines() if line.count(":") >= 2)
    return tuple(each for each in found if each)


def cgroup2_options(mountinfo: Path = Path("/proc/self/mountinfo")) -> str:
    """The options as mount(2) takes them; empty where no cgroup2 is mounted. Source: proc_pid_mountinfo(5)."""
    for line in mountinfo.read_text(errors="replace").splitlines():
        kind, _, options = line.partition(" - ")[2].partition(" ")
        if kind == "cgroup2":
            return ",".join(option for option in options.partition(" ")[2].split(",") if option in _KNOWN)
    return ""
