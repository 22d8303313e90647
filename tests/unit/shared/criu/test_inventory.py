from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.archive import CheckpointFiles
from shared.criu.criu_pb2 import InventoryEntry, PluginsEntry
from shared.criu.images import ImageDirectory, Kind, join, split
from shared.criu.inventory import read_inventory, skip_network_lock
from tests.support.checkpoints import SyntheticDump

Refused = Callable[..., Any]
Dumped = Callable[..., CheckpointFiles]


def inventory(dump: SyntheticDump, dumped: Dumped) -> Any:
    return read_inventory(ImageDirectory(dumped(dump), "checkpoint"))


def test_facts(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    entry = dump.inventory()
    entry.lsmtype, entry.network_lock_method, entry.tcp_close, entry.allow_uprobes = 2, 1, True, True
    entry.plugins_entry.CopyFrom(PluginsEntry(plugins=[b"amdgpu_plugin"]))
    found = inventory(dump, dumped)
    assert (found.lsm, found.network_lock, found.tcp_close, found.allow_uprobes) == ("apparmor", "nftables", True, True)
    assert found.plugins == ("amdgpu_plugin",)
    assert found.ids.uts_ns == 4


def test_dump_of_an_old_criu_locks_with_iptables(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    dump.inventory().ClearField("network_lock_method")
    assert inventory(dump, dumped).network_lock == "iptables"


@pytest.mark.parametrize("field", ["img_version", "fdinfo_per_id", "ns_per_id"])
def test_image_format_of_long_ago_is_refused(field: str, dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    dump.inventory().ClearField(field)
    with refused("ImagesTooOld", "checkpoint/inventory.img"):
        inventory(dump, dumped)


@pytest.mark.parametrize("field", ["lsmtype", "network_lock_method"])
def test_unknown_value_is_refused(field: str, dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    setattr(dump.inventory(), field, 77)
    with refused("ImageDamaged", "checkpoint/inventory.img", "77"):
        inventory(dump, dumped)


@pytest.mark.parametrize("text", [b"a\0b", b"x" * 5000])
def test_odd_text_is_refused(text: bytes, dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    dump.inventory().dump_criu_run_id = text
    with refused("ImageDamaged", "checkpoint/inventory.img"):
        inventory(dump, dumped)


def only(image: bytes) -> InventoryEntry:
    (piece,) = split(image, Kind.INVENTORY, "inventory.img")
    return InventoryEntry.FromString(piece)


@pytest.mark.parametrize("method", [None, 0, 1, 2])
def test_lock_is_skipped_and_everything_else_stays(method: int | None) -> None:
    entry = SyntheticDump.of_processes().inventory()
    entry.ClearField("network_lock_method")
    if method is not None:
        entry.network_lock_method = method
    patched = only(skip_network_lock(join(Kind.INVENTORY, [entry])))
    assert patched.network_lock_method == 2
    entry.network_lock_method = 2
    assert patched == entry


def test_patched_real_inventory_differs_in_the_method_only(sample_images: dict[str, bytes]) -> None:
    original = sample_images["inventory.img"]
    patched = skip_network_lock(original)
    assert len(patched) == len(original)
    changed = [index for index, (old, new) in enumerate(zip(original, patched, strict=True)) if old != new]
    assert len(changed) == 1
    assert (original[changed[0]], patched[changed[0]]) == (0, 2)
    assert original[changed[0] - 1] == 0x58  # field 11, varint: the bytes 58 02 of a patched image


@pytest.mark.parametrize(
    "image", [b"", b"\x16\x31\x31\x58", b"\x16\x31\x31\x58\1\0\0\0\xff", b"\x16\x31\x31\x58" + bytes(8)]
)
def test_damaged_inventory_is_not_patched(image: bytes) -> None:
    with pytest.raises(Exception, match=r"inventory\.img") as caught:
        skip_network_lock(image)
    assert caught.value.reason in ("WrongMagic", "ImageDamaged")  # type: ignore[attr-defined]
