"""The inventory, which CRIU reads first: how to read the other images, and what it does beside them.

Sources: criu/image.c (check_img_inventory), criu/netfilter.c (nftables_get_table), criu/pstree.c (get_clone_mask).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from shared.criu.criu_pb2 import InventoryEntry, PluginsEntry, TaskKobjIdsEntry
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind
from shared.criu.inventory import NETWORK_LOCK_SKIP
from shared.judge.namespaces import outside_namespaces
from shared.judge.rules import Fields, Rules, bounded, derived, free
from shared.judge.writing import ImageFile, image_file

_RUN: Final = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

FIELDS: Final[Fields] = {
    "InventoryEntry": {
        "img_version": derived("every image is written in CRIU's current form (inventory.py, read_inventory)"),
        "fdinfo_per_id": derived("every image is written in CRIU's current form"),
        "ns_per_id": derived("every image is written in CRIU's current form"),
        "root_ids": derived("namespaces of the CRIU that dumped, of which only equality with the container's counts"),
        "root_cg_set": derived("the runtime's cgroup is kept, whatever the dump names (manage-cgroups=ignore)"),
        "lsmtype": bounded("none, SELinux, AppArmor; the node must have the same one", lambda kind: kind <= 2),
        "dump_uptime": derived("only a later dump reads it (mem.c, should_dump_entire_vma)"),
        "pre_dump_mode": derived("only a dump reads it"),
        "tcp_close": free("CRIU refuses to restore without --tcp-close (image.c, check_img_inventory)"),
        "network_lock_method": bounded("iptables, nftables, skip; skipped without connections", lambda way: way <= 2),
        "plugins_entry": bounded("without one CRIU would use every plugin of the node; an empty one is written"),
        "dump_criu_run_id": bounded(
            "CRIU puts it into commands for nftables (netfilter.c, nftables_get_table), so it is a UUID",
            lambda run: _RUN.fullmatch(run) is not None,
        ),
        "allow_uprobes": free("CRIU refuses to restore without --allow-uprobes (image.c, check_img_inventory)"),
    },
    "PluginsEntry": {"plugins": bounded("none: plugins decide by themselves what they restore (images.py)")},
}  # fmt: skip


def image_files(images: ImageDirectory, dump: Dump, rules: Rules) -> Iterator[ImageFile]:
    """The inventory, which names no kernel object of the dump but the namespaces that were the dumping CRIU's."""
    entry = images.one(Kind.INVENTORY, InventoryEntry)
    rules.apply(entry, images.path(Kind.INVENTORY.file()))
    outside = outside_namespaces(dump)
    made = InventoryEntry(
        img_version=2,
        fdinfo_per_id=True,
        ns_per_id=True,
        # 0 is no number of the dump: with one of them the root task would share memory or descriptors with CRIU.
        root_ids=TaskKobjIdsEntry(vm_id=0, files_id=0, fs_id=0, sighand_id=0),
        lsmtype=entry.lsmtype,
        plugins_entry=PluginsEntry(),
    )
    for field, number in (
        ("pid_ns_id", outside.pid_ns),
        ("net_ns_id", outside.net_ns),
        ("ipc_ns_id", outside.ipc_ns),
        ("uts_ns_id", outside.uts_ns),
        ("mnt_ns_id", outside.mnt_ns),
        ("user_ns_id", outside.user_ns),
        ("cgroup_ns_id", outside.cgroup_ns),
        ("time_ns_id", outside.time_ns),
    ):
        if number:
            setattr(made.root_ids, field, number)
    for field in ("tcp_close", "allow_uprobes"):
        if entry.HasField(field):
            setattr(made, field, getattr(entry, field))
    if dump.sockets_established:
        made.network_lock_method = entry.network_lock_method
        if entry.dump_criu_run_id:
            made.dump_criu_run_id = entry.dump_criu_run_id
    else:
        # CRIU would block all traffic of the pod's network meanwhile, with hostNetwork the node's.
        made.network_lock_method = NETWORK_LOCK_SKIP
    yield image_file(Kind.INVENTORY, [made])
