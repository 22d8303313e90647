"""The kernel says, with the volume at hand, whether some user of the checkpoint could make a socket there."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nri_plugin.restore.socket_places import check_socket_places
from shared.errors import Refused
from shared.judge.file_rights import FileUser
from shared.judge.socket_places import SocketPlace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes root: it looks as other users")

USER = FileUser(1000, 1000, (1000, 2000))
FOWNER = 1 << 3


def place(
    volume: Path,
    path: str = "/data/s",
    *,
    users: tuple[FileUser, ...] = (USER,),
    capabilities: int = 0,
    deleted: bool = False,
) -> SocketPlace:
    return SocketPlace(path, "/data", str(volume), deleted, users, capabilities)


def bind(path: Path, uid: int = 0) -> None:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.close()
    os.chown(path, uid, uid)


def folder(volume: Path, mode: int, uid: int = 0, gid: int = 0) -> Path:
    volume.mkdir()
    os.chown(volume, uid, gid)
    volume.chmod(mode)
    return volume


@pytest.mark.parametrize(("mode", "uid", "gid"), [(0o700, 1000, 0), (0o770, 0, 2000), (0o777, 0, 0), (0o1777, 0, 0)])
def test_directory_that_the_user_may_write_in(mode: int, uid: int, gid: int, tmp_path: Path) -> None:
    check_socket_places([place(folder(tmp_path / "v", mode, uid, gid))])


@pytest.mark.parametrize(("mode", "uid", "gid"), [(0o755, 0, 0), (0o770, 0, 0), (0o775, 0, 3000), (0o577, 1000, 0)])
def test_directory_that_it_may_not_write_in(mode: int, uid: int, gid: int, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no user of the checkpoint may make it there") as failure:
        check_socket_places([place(folder(tmp_path / "v", mode, uid, gid))])
    assert failure.value.reason == "SocketExceeds"


def test_one_user_of_many_is_enough(tmp_path: Path) -> None:
    volume = folder(tmp_path / "v", 0o700, 1001)
    check_socket_places([place(volume, users=(USER, FileUser(1001, 1001, ())))])


def test_root_without_capabilities_is_a_user_like_others(tmp_path: Path) -> None:
    root = FileUser(0, 0, ())
    check_socket_places([place(folder(tmp_path / "own", 0o700), users=(root,))])
    with pytest.raises(Refused):
        check_socket_places([place(folder(tmp_path / "other", 0o700, 1000), users=(root,))])


def test_directory_on_the_way_that_the_user_may_not_enter(tmp_path: Path) -> None:
    volume = folder(tmp_path / "v", 0o755)
    folder(folder(volume / "a", 0o700) / "b", 0o777)
    with pytest.raises(Refused, match="no user"):
        check_socket_places([place(volume, "/data/a/b/s")])


def test_socket_that_is_there_in_a_directory_of_its_own(tmp_path: Path) -> None:
    volume = folder(tmp_path / "v", 0o777)
    bind(volume / "s")
    check_socket_places([place(volume)])


def test_sticky_directory_with_a_socket_of_somebody_else(tmp_path: Path) -> None:
    volume = folder(tmp_path / "v", 0o1777)
    bind(volume / "s")
    with pytest.raises(Refused, match="remove what is there"):
        check_socket_places([place(volume)])
    check_socket_places([place(volume, capabilities=FOWNER)])
    os.chown(volume / "s", 1000, 1000)
    check_socket_places([place(volume)])


def test_sticky_directory_of_the_user(tmp_path: Path) -> None:
    volume = folder(tmp_path / "v", 0o1777, 1000)
    bind(volume / "s")
    check_socket_places([place(volume)])


MAKES: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_text("x"),
    "directory": Path.mkdir,
    "fifo": os.mkfifo,
    "link": lambda path: path.symlink_to("/run/other.sock"),
}


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_something_else_is_there(make: Callable[[Path], object], tmp_path: Path) -> None:
    volume = folder(tmp_path / "v", 0o777)
    make(volume / "s")
    with pytest.raises(Refused, match="something else is there"):
        check_socket_places([place(volume)])


def test_name_that_criu_needs_for_a_deleted_socket(tmp_path: Path) -> None:
    volume = folder(tmp_path / "v", 0o777)
    check_socket_places([place(volume, deleted=True)])
    (volume / "s.criu-sk-ghost").write_text("x")
    check_socket_places([place(volume)])
    with pytest.raises(Refused, match="something else is there"):
        check_socket_places([place(volume, deleted=True)])


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="its directory cannot be opened"):
        check_socket_places([place(folder(tmp_path / "v", 0o777), "/data/a/s")])


def test_link_on_the_way(tmp_path: Path) -> None:
    volume = folder(tmp_path / "v", 0o777)
    folder(tmp_path / "outside", 0o777)
    (volume / "a").symlink_to(tmp_path / "outside")
    with pytest.raises(Refused, match="its directory cannot be opened"):
        check_socket_places([place(volume, "/data/a/s")])


def test_missing_volume(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="the volume cannot be opened"):
        check_socket_places([place(tmp_path / "v")])


def test_volume_by_way_of_run(tmp_path: Path) -> None:
    made = place(folder(tmp_path / "v", 0o777), "/var/run/a")
    check_socket_places([SocketPlace(made.path, "/run", made.source, made.deleted, made.users, made.capabilities)])


def test_rights_of_the_process_are_left_alone(tmp_path: Path) -> None:
    def rights() -> tuple[object, ...]:
        status = Path("/proc/thread-self/status").read_text().splitlines()
        return (os.getgroups(), *(line for line in status if line.startswith(("Uid", "Gid", "Groups", "Cap"))))

    before, threads = rights(), threading.active_count()
    check_socket_places([place(folder(tmp_path / "v", 0o777))])
    assert (rights(), threading.active_count()) == (before, threads)
