"""The kernel says, with the volume at hand, whether some user of the checkpoint could do what CRIU would do there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nri_plugin.restore.volume_files import check_volume_files
from shared.errors import Refused
from shared.judge.file_rights import FileUser
from shared.judge.volume_files import Deed, VolumeFile

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes root: it looks as other users")

USER = FileUser(1000, 1000, (1000, 2000))
SEARCHES = 1 << 2
"""CAP_DAC_READ_SEARCH."""


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    made = tmp_path / "volume"
    made.mkdir()
    made.chmod(0o755)
    return made


def file(
    deed: Deed, volume: Path, path: str, users: tuple[FileUser, ...] = (USER,), capabilities: int = 0
) -> VolumeFile:
    return VolumeFile(deed, path, "/data", str(volume), users, capabilities)


def folder(path: Path, mode: int, uid: int = 0, gid: int = 0) -> Path:
    path.mkdir()
    os.chown(path, uid, gid)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(("mode", "uid", "gid"), [(0o700, 1000, 0), (0o770, 0, 2000), (0o777, 0, 0)])
def test_file_is_made_again_where_the_user_may_make_some(mode: int, uid: int, gid: int, volume: Path) -> None:
    folder(volume / "own", mode, uid, gid)
    check_volume_files([file(Deed.MAKE, volume, "/data/own/gone")])


@pytest.mark.parametrize(("mode", "uid", "gid"), [(0o755, 0, 0), (0o770, 0, 3000), (0o500, 1000, 0)])
def test_file_is_not_made_where_the_user_may_not(mode: int, uid: int, gid: int, volume: Path) -> None:
    folder(volume / "other", mode, uid, gid)
    with pytest.raises(Refused, match=r"/data/other/gone.*make files in its directory") as refusal:
        check_volume_files([file(Deed.MAKE, volume, "/data/other/gone")])
    assert refusal.value.reason == "FileExceeds"


def test_directories_that_are_gone_count_as_the_one_above(volume: Path) -> None:
    folder(volume / "own", 0o700, 1000)
    check_volume_files([file(Deed.MAKE, volume, "/data/own/gone/deeper/file")])
    with pytest.raises(Refused):
        check_volume_files([file(Deed.MAKE, volume, "/data/gone/file")])


def test_nothing_is_left_on_the_volume(volume: Path) -> None:
    volume.chmod(0o777)
    check_volume_files([file(Deed.MAKE, volume, "/data/gone/file")])
    assert list(volume.iterdir()) == []


def test_user_watches_what_it_may_read(volume: Path) -> None:
    folder(volume / "conf", 0o755)
    check_volume_files([file(Deed.WATCH, volume, "/data/conf"), file(Deed.WATCH, volume, "/data")])


@pytest.mark.parametrize("path", ["/data/secret", "/data/secret/below", "/data/missing", "/data/link"])
def test_user_does_not_watch_what_it_may_not_read(path: str, volume: Path) -> None:
    secret = folder(volume / "secret", 0o700)
    folder(secret / "below", 0o755)
    (volume / "link").symlink_to("/etc")
    with pytest.raises(Refused, match="watch it as root"):
        check_volume_files([file(Deed.WATCH, volume, path)])


def test_capability_and_other_users_count(volume: Path) -> None:
    folder(volume / "secret", 0o700)
    check_volume_files([file(Deed.WATCH, volume, "/data/secret", capabilities=SEARCHES)])
    check_volume_files([file(Deed.WATCH, volume, "/data/secret", users=(USER, FileUser(0, 0, ())))])


def test_volume_that_is_one_file(volume: Path) -> None:
    single = volume / "settings"
    single.write_bytes(b"")
    single.chmod(0o644)
    check_volume_files([VolumeFile(Deed.WATCH, "/etc/settings", "/etc/settings", str(single), (USER,), 0)])
    single.chmod(0o600)
    with pytest.raises(Refused):
        check_volume_files([VolumeFile(Deed.WATCH, "/etc/settings", "/etc/settings", str(single), (USER,), 0)])


def test_volume_that_is_gone_is_refused(volume: Path) -> None:
    with pytest.raises(Refused):
        check_volume_files([file(Deed.WATCH, volume / "missing", "/data/conf")])


@pytest.mark.parametrize(("mode", "uid", "allowed"), [(0o600, 1000, True), (0o622, 0, True), (0o644, 0, False)])
def test_fifo_is_filled_where_the_user_may_write(mode: int, uid: int, allowed: bool, volume: Path) -> None:
    os.mkfifo(volume / "fifo")
    os.chown(volume / "fifo", uid, 0)
    (volume / "fifo").chmod(mode)
    if allowed:
        check_volume_files([file(Deed.FILL, volume, "/data/fifo")])
        return
    with pytest.raises(Refused, match="no user of the checkpoint may write into it"):
        check_volume_files([file(Deed.FILL, volume, "/data/fifo")])
