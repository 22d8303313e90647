"""Options of this node's cgroup2 file system.

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


def cgroup2_options(mountinfo: Path = Path("/proc/self/mountinfo")) -> str:
    """The options as mount(2) takes them; empty where no cgroup2 is mounted. Source: proc_pid_mountinfo(5)."""
    for line in mountinfo.read_text(errors="replace").splitlines():
        kind, _, options = line.partition(" - ")[2].partition(" ")
        if kind == "cgroup2":
            return ",".join(option for option in options.partition(" ")[2].split(",") if option in _KNOWN)
    return ""
