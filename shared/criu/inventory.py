"""CRIU's inventory: how the dump was made. Source: images/inventory.proto, criu/image.c (check_img_inventory)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from shared.criu.criu_pb2 import InventoryEntry
from shared.criu.decode import damaged
from shared.criu.images import ImageDirectory, Kind, text
from shared.criu.task_ids import TaskIds
from shared.errors import CheckpointInvalid

NETWORK_LOCK_SKIP: Final = 2
"""criu/include/cr_options.h, enum NETWORK_LOCK_METHOD: iptables, nftables, skip."""
_LOCK_METHODS: Final[dict[int, Literal["iptables", "nftables", "skip"]]] = {0: "iptables", 1: "nftables", 2: "skip"}
_LSM_TYPES: Final[dict[int, Literal["none", "selinux", "apparmor"]]] = {0: "none", 1: "selinux", 2: "apparmor"}
_IMAGES_V1_1: Final = 2


@dataclass(frozen=True, slots=True)
class Inventory:
    ids: TaskIds
    """Namespaces of the CRIU that dumped: a task that has the same one was not in a namespace of its own."""
    lsm: Literal["none", "selinux", "apparmor"]
    network_lock: Literal["iptables", "nftables", "skip"]
    tcp_close: bool
    """Dumped with --tcp-close; restore needs it too."""
    allow_uprobes: bool
    """Dumped with --allow-uprobes; restore needs it too."""
    plugins: tuple[str, ...]
    """CRIU plugins that the restore needs, e.g. for GPUs."""
    run_id: str


def read_inventory(images: ImageDirectory) -> Inventory:
    """Raises CheckpointInvalid: FileMissing, WrongMagic, ImageDamaged, ImagesTooOld."""
    name = images.path(Kind.INVENTORY.file())
    entry = images.one(Kind.INVENTORY, InventoryEntry)
    if entry.img_version != _IMAGES_V1_1 or not entry.fdinfo_per_id or not entry.ns_per_id:
        raise CheckpointInvalid(
            "ImagesTooOld", f"{name} names image version {entry.img_version}; only CRIU 1.7 and later are read"
        )
    try:
        lsm, lock = _LSM_TYPES[entry.lsmtype], _LOCK_METHODS[entry.network_lock_method]
    except KeyError as error:
        raise damaged(name, f"has the unknown value {error} for the LSM or the network lock") from None
    return Inventory(
        ids=TaskIds.of(entry.root_ids),
        lsm=lsm,
        network_lock=lock,
        tcp_close=entry.tcp_close,
        allow_uprobes=entry.allow_uprobes,
        plugins=tuple(text(plugin, name) for plugin in entry.plugins_entry.plugins),
        run_id=text(entry.dump_criu_run_id, name),
    )
