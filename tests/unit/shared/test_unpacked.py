"""Unpacked directories: whatever lies in them, nothing outside is read and nothing special is opened."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.archive import open_checkpoint
from tests.support.checkpoints import write_directory

Refused = Callable[..., Any]
FILES = {"config.dump": b"{}", "checkpoint/core-1.img": b"core"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_directory(tmp_path / "checkpoint-view", FILES)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    path = tmp_path / "outside" / "secret"
    path.write_text("secret")
    return path


def test_link_to_a_file_is_refused(folder: Path, secret: Path, refused: Refused) -> None:
    (folder / "container.log").symlink_to(secret)
    with refused("MemberKind", '"container.log"'):
        open_checkpoint(folder)


def test_link_to_a_folder_is_refused(folder: Path, secret: Path, refused: Refused) -> None:
    (folder / "volumes").symlink_to(secret.parent)
    with refused("MemberKind", '"volumes"'):
        open_checkpoint(folder)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: socket.socket(socket.AF_UNIX).bind(str(path))])
def test_special_files_are_refused(folder: Path, make: Callable[[Path], None], refused: Refused) -> None:
    make(folder / "odd")
    with refused("MemberKind", '"odd"'):
        open_checkpoint(folder)


def test_file_replaced_by_a_link_after_listing_is_not_followed(folder: Path, secret: Path, refused: Refused) -> None:
    with open_checkpoint(folder) as files:
        (folder / "config.dump").unlink()
        (folder / "config.dump").symlink_to(secret)
        for call in (files.open, files.size):
            with refused("MemberKind", '"config.dump"'):
                call("config.dump")


def test_folder_replaced_by_a_link_after_listing_is_not_followed(folder: Path, secret: Path, refused: Refused) -> None:
    with open_checkpoint(folder) as files:
        (folder / "checkpoint").rename(folder.parent / "moved")
        (folder / "checkpoint").symlink_to(secret.parent)
        with refused("MemberKind", '"checkpoint"'):
            files.open("checkpoint/core-1.img")


def test_file_replaced_by_a_fifo_after_listing_does_not_hang(folder: Path, refused: Refused) -> None:
    with open_checkpoint(folder) as files:
        (folder / "config.dump").unlink()
        os.mkfifo(folder / "config.dump")
        with refused("MemberKind", '"config.dump"'):
            files.open("config.dump")


def test_folder_moved_away_is_still_the_one_that_was_opened(folder: Path) -> None:
    with open_checkpoint(folder) as files:
        folder.rename(folder.parent / "elsewhere")
        assert files.read("checkpoint/core-1.img", 10) == b"core"


def test_file_removed_after_listing_is_unreadable(folder: Path, refused: Refused) -> None:
    with open_checkpoint(folder) as files:
        (folder / "config.dump").unlink()
        with refused("CheckpointUnreadable", "config.dump", "No such file"):
            files.read("config.dump", 10)


def test_disk_error_in_a_folder_is_a_checkpoint_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    def broken(*_: object, **__: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with open_checkpoint(folder) as files:
        monkeypatch.setattr(os, "open", broken)
        with refused("CheckpointUnreadable", "core-1.img", "Input/output error"):
            files.open("checkpoint/core-1.img")


def test_subdirectory_of_a_container_root(tmp_path: Path) -> None:
    write_directory(tmp_path / "root" / ".nri-restore", FILES)
    (tmp_path / "root" / "bin").symlink_to("usr/bin")
    with open_checkpoint(tmp_path / "root", subdirectory=".nri-restore") as files:
        assert files.path == tmp_path / "root" / ".nri-restore"
        assert {name: files.read(name, 10) for name in files.names()} == FILES


@pytest.mark.parametrize("subdirectory", ["link", "link/deeper", "a/link"])
def test_subdirectory_through_a_link_is_refused(tmp_path: Path, subdirectory: str, refused: Refused) -> None:
    root = tmp_path / "root"
    write_directory(tmp_path / "target" / "deeper", FILES)
    (root / "a").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path / "target")
    (root / "a" / "link").symlink_to(tmp_path / "target")
    with refused("MemberKind", '"link"'):
        open_checkpoint(root, subdirectory=subdirectory)


def test_missing_subdirectory_is_named(folder: Path, refused: Refused) -> None:
    with refused("FileMissing", ".nri-restore"):
        open_checkpoint(folder, subdirectory=".nri-restore")


def test_name_that_is_not_utf_8_is_refused(folder: Path, refused: Refused) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff"))).write_text("x")
    with refused("MemberName", "UTF-8"):
        open_checkpoint(folder)


def test_too_many_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr("shared.unpacked.MEMBERS_MAX", 1)
    with refused("TooManyMembers"):
        open_checkpoint(folder)


def test_too_deeply_nested_folders_are_refused(tmp_path: Path, refused: Refused) -> None:
    deep = tmp_path / "c"
    write_directory(deep / "/".join("d" * 40), {"x": b""})
    with refused("MemberName", "too deep"):
        open_checkpoint(deep)
