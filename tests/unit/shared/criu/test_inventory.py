from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.archive import CheckpointFiles
from shared.criu.criu_pb2 import PluginsEntry
from shared.criu.images import ImageDirectory
from shared.criu.inventory import read_inventory
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
