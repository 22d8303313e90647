"""Removes what earlier test runs left behind when they were killed: processes, mounts, cgroups, interfaces, folders.

``python -m tests.e2e.node.sweep`` leaves running tests alone; ``--all`` ends their machines too,
also those of other users' caches.
Needs nothing but the standard library and root.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from tests.e2e.node import cgroups
from tests.e2e.node.machine import destroy
from tests.e2e.node.network import bridge_of, remove_bridge
from tests.e2e.node.places import cache, locked, runs
from tests.e2e.node.processes import lives


def sweep(*, everything: bool = False) -> list[str]:
    """Removes machines, then networks, whose owner is dead (or all); returns what it removed."""
    with sweeping():
        return sweep_now(everything=everything)


def sweeping() -> AbstractContextManager[None]:
    """Inside, no other process sweeps."""
    return locked(cache() / "sweep.lock")


def sweep_now(*, everything: bool = False) -> list[str]:
    """As ``sweep``, for who is ``sweeping``."""
    removed = []
    for folder in sorted(runs().glob("machine-*")) + sorted(runs().glob("network-*")):
        record = folder / "owner"
        if not everything and record.exists() and lives(record.read_text()):
            continue
        kind, _, name = folder.name.partition("-")
        if kind == "machine":
            destroy(name)
        else:
            remove_bridge(name)
            shutil.rmtree(folder)
        removed.append(folder.name)
    return removed + (_without_a_folder() if everything else [])


def _without_a_folder() -> list[str]:
    # The folder was deleted by hand, or belongs to a run with another cache.
    removed = []
    groups = {
        group.name for hierarchy in cgroups.hierarchies() for group in hierarchy.folder.glob(f"{cgroups.PREFIX}*")
    }
    for name in sorted(group.removeprefix(cgroups.PREFIX) for group in groups):
        destroy(name)
        removed.append(f"cgroup {name}")
    for bridge in sorted(Path("/sys/class/net").glob(f"{bridge_of('')}*")):
        remove_bridge(bridge.name.removeprefix(bridge_of("")))
        removed.append(f"bridge {bridge.name}")
    return removed


def main() -> None:
    for name in sweep(everything="--all" in sys.argv[1:]):
        print(f"removed {name}")


if __name__ == "__main__":
    main()
