"""Everything that could be left behind on a node, as comparable sets."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.e2e.node import cgroups

if TYPE_CHECKING:
    from tests.e2e.node.node import Node

WATCHED_FOLDERS: Final = (
    "/run/containerd",
    "/run/netns",
    "/run/nri-restore",
    "/var/lib/cni",
    "/var/lib/containerd/tmpmounts",
    "/var/lib/kubelet",
    "/var/lib/nri-restore",
    "/var/log/pods",
    "/tmp",
)
_KEPT_FILES: Final = (
    "/run/containerd/containerd.sock",
    "/run/nri-restore/metrics.sock",
    "/var/lib/cni/networks/pods/last_reserved_ip",
    "/var/lib/cni/networks/pods/lock",
    "/var/lib/nri-restore/pulls",  # who could pull what outlives the image, and expires by itself
)
_KEPT_FOLDERS: Final = ("/run/containerd", "/var/lib/cni")
"""Made at the first pod or with containerd, and kept on purpose."""
_OWN_FOLDERS: Final = {"/run/nri-restore/views", "/var/lib/nri-restore/images"}
"""Made at the first restore and kept, empty."""

COLLECTED_S: Final = 90.0
"""containerd collects garbage for 2 % of the time at most (pause_threshold): on a busy machine that is not often."""

_KEPT_TABLES: Final = {
    f"table {family} {name}" for family in ("ip", "ip6") for name in ("nat", "filter", "mangle", "raw")
}


@dataclass(frozen=True)
class Inventory:
    mounts: Counter[str]
    processes: Counter[str]
    cgroups: Counter[str]
    interfaces: Counter[str]
    firewall: Counter[str]
    files: Counter[str]
    containers: Counter[str]
    tasks: Counter[str]
    snapshots: Counter[str]
    leases: Counter[str]
    content: Counter[str]
    images: Counter[str]

    def beyond(self, earlier: Inventory, *, ignoring: Iterable[str] = ()) -> dict[str, list[str]]:
        """What is here and was not in ``earlier``, by kind; kinds without a difference are left out."""
        return _difference(self, earlier, set(ignoring))

    def missing(self, earlier: Inventory, *, ignoring: Iterable[str] = ()) -> dict[str, list[str]]:
        """What was in ``earlier`` and is gone."""
        return _difference(earlier, self, set(ignoring))

    def counts(self) -> dict[str, int]:
        return {each.name: getattr(self, each.name).total() for each in fields(self)}


def _difference(more: Inventory, less: Inventory, ignoring: set[str]) -> dict[str, list[str]]:
    found = {
        each.name: sorted((getattr(more, each.name) - getattr(less, each.name)).elements())
        for each in fields(more)
        if each.name not in ignoring
    }
    return {kind: entries for kind, entries in found.items() if entries}


def take_inventory(node: Node) -> Inventory:
    """Looks once; half a second at most."""
    script = (
        "for what in 'containers ls -q' 'tasks ls -q' 'snapshots ls' 'leases ls -q' "
        "'content ls -q' 'images ls -q'; do\n"
        '  echo "== $what"; ctr -n k8s.io $what; done\n'
        "echo '== net'; ls /sys/class/net\n"
        "echo '== iptables'; iptables-save; ip6tables-save; echo '== tables'; nft list tables\n"
    )
    listed: dict[str, list[str]] = {}
    for line in node.sh(script).splitlines():
        if line.startswith("== "):
            current = listed.setdefault(line[3:], [])
        else:
            current.append(line)
    snapshots = [line.split()[0] for line in listed["snapshots ls"][1:]]
    rules = [line for line in listed["iptables"] if line.startswith("-A") or (line[:1] == ":" and " - " in line)]
    tables = [line for line in listed["tables"] if line not in _KEPT_TABLES]
    mounts = Path(f"/proc/{node.init}/mountinfo").read_text().splitlines()
    return Inventory(
        mounts=Counter(line.split(" ")[4] for line in mounts),
        processes=Counter(node.processes().values()),
        cgroups=Counter(_cgroups(node)),
        interfaces=Counter(set(listed["net"]) - {"lo", "eth0", "cni0"}),
        firewall=Counter([rule.partition(" [")[0] for rule in rules] + tables),
        files=Counter(_files(node)),
        containers=Counter(listed["containers ls -q"]),
        tasks=Counter(listed["tasks ls -q"]),
        snapshots=Counter(snapshots),
        leases=Counter(listed["leases ls -q"]),
        content=Counter(listed["content ls -q"]),
        images=Counter(listed["images ls -q"]),
    )


def _cgroups(node: Node) -> set[str]:
    found = set()
    for root in cgroups.folders(node.name):
        found |= {str(group.relative_to(root)) for group in root.rglob("*") if group.is_dir()}
    return found


def _files(node: Node) -> list[str]:
    found = []
    for folder in WATCHED_FOLDERS:
        inside = node.path(folder)
        for parent, folders, files in os.walk(inside):
            # What a root file system shows is the snapshot's, not the folder's.
            folders[:] = [name for name in folders if name != "rootfs"]
            where = f"{folder}/{Path(parent).relative_to(inside)}".removesuffix("/.")
            names = [*files, *(folders if folder not in _KEPT_FOLDERS else ())]
            paths = [f"{where}/{name}" for name in names]
            found += [path for path in paths if not path.startswith(_KEPT_FILES) and path not in _OWN_FOLDERS]
    return found


def settled(
    node: Node,
    before: Inventory,
    *,
    timeout_s: float = COLLECTED_S,
    ignoring: Iterable[str] = (),
    without: tuple[str, ...] = (),
    every_s: float = 0.2,
) -> dict[str, list[str]]:
    """What is left beyond ``before`` once nothing more goes away; empty as soon as nothing is left.

    containerd collects snapshots and content a moment after their owner went. Files whose paths start as one of
    ``without`` may stay.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        left = node.inventory().beyond(before, ignoring=ignoring)
        left["files"] = [path for path in left.get("files", ()) if not path.startswith(without)]
        left = {kind: entries for kind, entries in left.items() if entries}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(every_s)
