"""What of a node must be the same after an attack as before: files, mounts, processes, store, kernel settings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.node.inventory import Inventory, settled
from tests.e2e.node.node import Node

FOLDERS = ("/etc", "/root", "/home", "/usr/local", "/var/spool", "/srv", "/boot", "/dev")
"""Where an attack would leave something; what a node itself writes while it runs is elsewhere."""
_OWN = ("/var/lib/kubelet/pods/", "/var/log/pods/")
"""Termination logs and log folders that the tests' kubelet makes before it asks the runtime for anything."""
SETTINGS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/shmmax",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/fs/binfmt_misc",
)


@dataclass(frozen=True)
class Condition:
    inventory: Inventory
    files: dict[str, tuple[int, int, int, int]]
    settings: dict[str, str]

    @classmethod
    def of(cls, node: Node) -> Condition:
        return cls(node.inventory(), _files(node), _settings(node))

    def effects(self, node: Node) -> list[str]:
        """What is different now, once the runtime has cleaned up after itself."""
        left = settled(node, self.inventory, without=_OWN)
        found = [f"{kind}: {entry}" for kind, entries in left.items() for entry in entries]
        # The index of the tests' own import belongs to nothing, and is collected.
        gone = node.inventory().missing(self.inventory, ignoring=("content",))
        for kind, entries in gone.items():
            # The socket of a shim that was still ending at the first look; processes are compared by themselves.
            found += [f"{kind} gone: {entry}" for entry in entries if not entry.startswith("/run/containerd/s/")]
        now = _files(node)
        found += [f"file: {name}" for name in now.keys() | self.files.keys() if now.get(name) != self.files.get(name)]
        settings = _settings(node)
        found += [f"setting: {name}" for name in settings if settings[name] != self.settings[name]]
        return found


def _files(node: Node) -> dict[str, tuple[int, int, int, int]]:
    found = {}
    for folder in FOLDERS:
        for parent, folders, files in os.walk(node.path(folder)):
            for name in (*folders, *files):
                path = Path(parent, name)
                try:
                    status = path.lstat()
                except FileNotFoundError:
                    continue
                found[str(path)] = (status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns)
    return found


def _settings(node: Node) -> dict[str, str]:
    script = "; ".join(f"echo {name}=$(cat {name} 2>/dev/null || ls {name} 2>/dev/null)" for name in SETTINGS)
    return dict(line.partition("=")[::2] for line in node.sh(script).splitlines() if "=" in line)  # type: ignore[misc]


def memory_bytes(node: Node) -> int:
    """The most that daemon and worker have used at once so far, each."""
    script = "grep -h VmHWM $(grep -lsa nri_plugin /proc/[0-9]*/cmdline | sed s/cmdline/status/) 2>/dev/null || :"
    return max((int(line.split()[1]) * 1024 for line in node.sh(script).splitlines()), default=0)
