"""Whiteouts: where they mean something, each must mean it to every runtime."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from shared.tar import CHECKPOINT, DIFF, IMAGE, TMPFS
from tests.support.checkpoints import Member, member
from tests.support.tars import archive, walked

Refused = Callable[..., Any]


@pytest.mark.parametrize(
    "name",
    [".wh.", ".wh..", ".wh...", "a/.wh..", ".wh..wh.plnk/1", ".wh..wh.aufs", ".wh..wh..opq/a", ".wh.a/b", ".wh..wh.a"],
)
def test_whiteout_that_runtimes_take_differently_is_refused(name: str, refused: Refused) -> None:
    with refused("ArchiveAmbiguous", f'"{name}"', "runtimes do not agree"):
        walked(archive(member(name)), DIFF)


@pytest.mark.parametrize(
    "whiteout",
    [
        member(".wh.a", b"x"),
        member(".wh.a/", kind=tarfile.DIRTYPE),
        member(".wh.a", kind=tarfile.SYMTYPE, linkname="b"),
        member("d/.wh..wh..opq/", kind=tarfile.DIRTYPE),
    ],
)
def test_whiteout_that_is_more_than_an_empty_file_is_refused(whiteout: Member, refused: Refused) -> None:
    with refused("ArchiveAmbiguous", "more than an empty file"):
        walked(archive(whiteout), DIFF)


@pytest.mark.parametrize("name", ["a", "a/b"])
def test_whiteout_behind_what_it_deletes_is_refused(name: str, refused: Refused) -> None:
    with refused("ArchiveAmbiguous", 'deletes "a"'):
        walked(archive(member(name, b"x"), member(".wh.a")), DIFF)


def test_whiteouts_that_engines_write_are_taken() -> None:
    found = walked(
        archive(
            member("d/", kind=tarfile.DIRTYPE), member("d/a", b"x"), member("d/.wh..wh..opq"), member(".wh.b"),
            member("b", b"x"), member("c.wh.d", b"x"),
        ),
        DIFF,
    )  # fmt: skip
    assert [each.name for each in found] == ["d", "d/a", "d/.wh..wh..opq", ".wh.b", "b", "c.wh.d"]


def test_whiteout_in_a_checkpoint_archive_is_refused(refused: Refused) -> None:
    with refused("ArchiveAmbiguous", "a runtime would delete a file instead"):
        walked(archive(member("checkpoint/.wh.pages-1.img")), CHECKPOINT)


def test_whiteout_is_an_ordinary_name_in_a_tmpfs_and_not_judged_in_a_base_image() -> None:
    for rules in (TMPFS, IMAGE):
        assert len(walked(archive(member("a", b"x"), member(".wh.a", b"y")), rules)) == 2
