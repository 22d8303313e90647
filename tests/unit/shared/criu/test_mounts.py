from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.archive import CheckpointFiles
from shared.criu import mounts as mounts_module
from shared.criu.images import ImageDirectory
from shared.criu.mounts import MountEntry, read_mounts
from tests.support.checkpoints import SyntheticDump

Refused = Callable[..., Any]
Dumped = Callable[..., CheckpointFiles]


def mounts(dump: SyntheticDump, dumped: Dumped) -> dict[str, MountEntry]:
    return {mount.mountpoint: mount for mount in read_mounts(ImageDirectory(dumped(dump), "checkpoint"), (13,))}


def test_mount_tree(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    dump.add_mount("/data", flags=1 | 1 << 21, shared_id=3, master_id=4, options=b"discard")
    found = mounts(dump, dumped)
    assert (found["/"].fstype, found["/"].id, found["/"].parent, found["/"].namespace) == ("overlay", 147, 111, 13)
    assert {path: mount.fstype for path, mount in found.items()} == {
        "/": "overlay",
        "/proc": "proc",
        "/dev": "tmpfs",
        "/dev/pts": "devpts",
        "/sys": "sysfs",
        "/data": "",
    }
    data = found["/data"]
    assert (data.external, data.root, data.source) == ("/data", "/var/lib/node/data", "/dev/vda")
    assert (data.shared_id, data.master_id, data.options, data.deleted) == (3, 4, "discard", False)
    assert found["/dev"].device == 65


@pytest.mark.parametrize(("flags", "sb_flags", "readonly"), [(0, 0, False), (1, 0, True), (0, 1, True), (14, 0, False)])
def test_readonly_by_mount_or_by_file_system(flags: int, sb_flags: int, readonly: bool, dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    dump.add_mount("/data", flags=flags, sb_flags=sb_flags)
    assert mounts(dump, dumped)["/data"].readonly is readonly


def test_file_system_that_criu_only_knows_by_name(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    dump.add_mount("/x", fstype=16, fsname=b"ext4")
    dump.add_mount("/y", fstype=4711)
    found = mounts(dump, dumped)
    assert (found["/x"].fstype, found["/y"].fstype) == ("ext4", "")


def test_external_mount_as_older_criu_marked_it(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    dump.add_mount("/data", ext_mount=True, root=b"/data")
    dump.mount("/data").ClearField("ext_key")
    assert mounts(dump, dumped)["/data"].external == "/data"


def test_own_mount_is_not_external(dumped: Dumped) -> None:
    assert mounts(SyntheticDump.of_processes(), dumped)["/proc"].external is None


@pytest.mark.parametrize("field", ["mountpoint", "root"])
@pytest.mark.parametrize("path", [b"", b"etc", b"../etc", b"/../etc", b"/a/../../etc", b"/a/.."])
def test_path_that_leads_outside_is_refused(field: str, path: bytes, dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    dump.add_mount("/data", **{field: path})
    with refused("ImagePath", "checkpoint/mountpoints-13.img", "outside the container"):
        mounts(dump, dumped)


@pytest.mark.parametrize("field", ["mountpoint", "root", "source", "options", "ext_key", "fsname"])
@pytest.mark.parametrize("value", [b"/a\0/../b", b"/" + b"x" * 70_000])
def test_odd_text_is_refused(field: str, value: bytes, dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    dump.add_mount("/data", **({"fstype": 16, "fsname": b"ext4"} | {field: value}))
    with refused("ImageDamaged", "checkpoint/mountpoints-13.img"):
        mounts(dump, dumped)


def test_path_that_is_not_utf_8_is_shown_escaped(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    dump.add_mount("/data", mountpoint=b"/caf\xe9")
    assert r"/caf\xe9" in mounts(dump, dumped)


def test_one_mount_twice_is_refused(dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    dump.add_mount("/data", mnt_id=147)
    with refused("ImageDamaged", "one twice"):
        mounts(dump, dumped)


def test_too_many_mounts_are_refused(dumped: Dumped, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr(mounts_module, "MOUNTS_MAX", 4)
    with refused("ImageDamaged", "too many mounts"):
        mounts(SyntheticDump.of_processes(), dumped)


def test_missing_image_is_named(dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    del dump.images["mountpoints-13.img"]
    with refused("FileMissing", "mountpoints-13.img"):
        mounts(dump, dumped)


def second_root(dump: SyntheticDump) -> None:
    dump.add_mount("/", parent_mnt_id=4711)


def circle(dump: SyntheticDump) -> None:
    dump.add_mount("/a", mnt_id=501, parent_mnt_id=502)
    dump.add_mount("/b", mnt_id=502, parent_mnt_id=501)


def no_root(dump: SyntheticDump) -> None:
    dump.mount("/").mountpoint = b"/mnt"


def without_number(dump: SyntheticDump) -> None:
    dump.mount("/proc").mnt_id = 0


def negative(dump: SyntheticDump) -> None:
    dump.mount("/proc").mnt_id = 1 << 31


@pytest.mark.parametrize("change", [second_root, circle, no_root, without_number, negative])
def test_mounts_that_are_no_tree_are_refused(
    change: Callable[[SyntheticDump], None], dumped: Dumped, refused: Refused
) -> None:
    dump = SyntheticDump.of_processes()
    change(dump)
    with refused("ImageDamaged", "checkpoint/mountpoints-13.img", ""):
        mounts(dump, dumped)


def test_mount_of_two_namespaces_is_refused(dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes(2)
    dump.nest_mounts(2)
    dump.images["mountpoints-14.img"][-1].mnt_id = 147  # type: ignore[attr-defined]
    for entry in dump.images["mountpoints-14.img"]:
        if entry.parent_mnt_id == 1147:  # type: ignore[attr-defined]
            entry.parent_mnt_id = 147  # type: ignore[attr-defined]
    images = ImageDirectory(dumped(dump), "checkpoint")
    with refused("ImageDamaged", "checkpoint/mountpoints-14.img", "another mount namespace"):
        read_mounts(images, (13, 14))
