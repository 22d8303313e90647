from __future__ import annotations

import tarfile
from collections.abc import Iterable
from typing import Any

import pytest

from kubectl_restore.check.rootfs import Layer, look_up
from kubectl_restore.image.source import Literal
from shared.compression import Compression
from shared.errors import CheckpointInvalid
from shared.preflight.files import Found
from tests.support.checkpoints import Member, compress, member, tar_of_members
from tests.support.elf import NT_BUILD_ID, elf, note

BUILD_ID = bytes(range(20))
PROGRAM = elf([note(NT_BUILD_ID, BUILD_ID)], size=3 << 20)


def layer(*members: Member, deleted: tuple[str, ...] = (), compression: Compression = Compression.NONE) -> Layer:
    return Layer("a layer", Literal(compress(tar_of_members(members), compression)), deleted)


def folder(name: str) -> Member:
    return member(name, kind=tarfile.DIRTYPE)


def kinds(layers: Iterable[Layer], *paths: str) -> list[str | None]:
    found = look_up(list(layers), paths)
    return [each.kind if each else None for each in (found[path] for path in paths)]


@pytest.mark.parametrize("compression", list(Compression))
def test_file_with_size_mode_and_build_id(compression: Compression) -> None:
    found = look_up([layer(member("bin/app", PROGRAM, mode=0o755), compression=compression)], ["/bin/app"])["/bin/app"]
    assert found is not None
    assert (found.kind, found.size, found.mode) == ("file", 3 << 20, 0o755)
    assert found.elf is not None
    assert found.elf.build_id == BUILD_ID.hex()


def test_upper_layer_wins() -> None:
    found = look_up([layer(member("a", b"new")), layer(member("a", b"older"))], ["/a"])
    assert found["/a"] == Found("file", 3, 0o600, None)


def test_lower_layer_has_what_the_upper_does_not() -> None:
    assert kinds([layer(member("b")), layer(folder("d/"), member("d/a", b"1"))], "/d/a", "/d", "/x") == [
        "file",
        "directory",
        None,
    ]


@pytest.mark.parametrize("name", [".wh.d", "d/.wh.a", "d/.wh..wh..opq"])
def test_whiteouts_hide(name: str) -> None:
    assert kinds([layer(member(name)), layer(member("d/a", b"1"))], "/d/a") == [None]


@pytest.mark.parametrize("name", [".wh.e", "d/.wh.b", "e/.wh..wh..opq", "d/a/.wh..wh..opq"])
def test_whiteouts_of_others_hide_nothing(name: str) -> None:
    assert kinds([layer(member(name)), layer(member("d/a", b"1"))], "/d/a") == ["file"]


def test_whiteout_hides_only_what_is_below_its_layer() -> None:
    layers = [layer(member("a", b"again")), layer(member(".wh.a")), layer(member("a", b"old"))]
    found = look_up(layers, ["/a"])["/a"]
    assert found is not None
    assert found.size == 5


def test_opaque_folder_keeps_what_its_own_layer_has() -> None:
    layers = [layer(member("d/.wh..wh..opq"), member("d/new", b"1")), layer(member("d/old", b"1"))]
    assert kinds(layers, "/d/new", "/d/old", "/d") == ["file", None, "directory"]


def test_deleted_paths_are_gone() -> None:
    layers = [layer(deleted=("/a", "/d")), layer(member("a", b"1"), member("d/b", b"1"), member("c", b"1"))]
    assert kinds(layers, "/a", "/d/b", "/c") == [None, None, "file"]


def test_file_in_place_of_a_folder_hides_what_was_in_it() -> None:
    assert kinds([layer(member("d", b"1")), layer(member("d/a", b"1"))], "/d/a", "/d") == [None, "file"]


def test_folder_needs_no_member_of_its_own() -> None:
    assert kinds([layer(member("srv/app/main", b"1"))], "/srv", "/srv/app") == ["directory", "directory"]


def test_root_is_always_there() -> None:
    assert kinds([], "/") == ["directory"]


@pytest.mark.parametrize("order", [0, 1])
def test_hard_link_is_what_it_names(order: int) -> None:
    members = [
        member("bin/busybox", PROGRAM, mode=0o755),
        member("bin/sh", kind=tarfile.LNKTYPE, linkname="./bin/busybox"),
    ]
    found = look_up([layer(*(reversed(members) if order else members))], ["/bin/sh"])["/bin/sh"]
    assert found is not None
    assert (found.kind, found.size) == ("file", 3 << 20)


def test_hard_link_to_nothing_is_nothing() -> None:
    assert kinds([layer(member("a", kind=tarfile.LNKTYPE, linkname="b"))], "/a") == [None]


def test_hard_links_in_a_circle_end() -> None:
    circle = layer(member("a", kind=tarfile.LNKTYPE, linkname="b"), member("b", kind=tarfile.LNKTYPE, linkname="a"))
    assert kinds([circle], "/a", "/b") == [None, None]


def test_layers_below_the_last_that_is_needed_are_not_read() -> None:
    def fails(offset: int = 0) -> Any:
        raise AssertionError("read")

    unread = Layer("unread", Literal(b""))
    object.__setattr__(unread.source, "pieces", fails)
    assert kinds([layer(member("a", b"1")), unread], "/a") == ["file"]


def test_odd_names_and_devices_of_a_layer_do_no_harm() -> None:
    odd = layer(
        member("dev/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3), member("x\x1by", b"1"), member("a", b"1")
    )
    assert kinds([odd], "/dev/null", "/a") == ["character device", "file"]


@pytest.mark.parametrize("content", [b"x" * 600, tar_of_members([member("a", b"1" * 600)])[:700], b"\x1f\x8b\x08junk"])
def test_damaged_layer_is_refused(content: bytes) -> None:
    with pytest.raises(CheckpointInvalid):
        look_up([Layer("a layer", Literal(content))], ["/a"])
