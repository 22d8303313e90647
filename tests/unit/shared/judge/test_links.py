from __future__ import annotations

from pathlib import Path

import pytest

from shared.criu.dump import Dump
from shared.errors import Refused
from shared.judge.links import check_links, check_volumes_of_mounters, held_mounts
from tests.support.checkpoints import SyntheticDump
from tests.support.paths_in_dumps import with_fifo, with_file, with_odd_name, with_socket, with_watch
from tests.support.pods import read

OLD, NEW = "5.13.19-generic", "5.14.0-70.el9"


def held(dump: Dump, kernel: str = NEW, *, may_mount: bool = False) -> set[str]:
    return {mount.mountpoint for mount in held_mounts(dump, kernel, may_mount=may_mount)}


def test_root_and_volumes_are_held_and_nothing_else() -> None:
    dump = with_socket("/run/app.sock")
    dump.add_mount("/data", ext_key=b"/data", flags=2)
    dump.add_mount("/proc/kcore", ext_key=b"/dev/null")
    assert held(read(dump)) == {"/", "/data"}


def test_nothing_is_held_for_files_of_the_root_alone() -> None:
    dump = with_file("/srv/x")
    dump.add_mount("/data", ext_key=b"/data")
    assert held(read(dump)) == set()


def test_all_is_held_where_the_pod_may_mount() -> None:
    """A file of the dump may be on another mount then than its path says."""
    dump = with_file("/srv/x")
    dump.add_mount("/data", ext_key=b"/data")
    assert held(read(dump), may_mount=True) == {"/", "/data"}


def test_copies_in_a_mount_namespace_of_a_process_are_held_too() -> None:
    dump = SyntheticDump.of_processes(2)
    dump.add_mount("/data", ext_key=b"/data")
    dump.nest_mounts(2)
    nested = held_mounts(read(dump), NEW, may_mount=True)
    assert [(mount.namespace, mount.mountpoint) for mount in nested if mount.namespace != 13] == [
        (14, "/"),
        (14, "/data"),
    ]


def test_open_file_of_a_volume_holds_them() -> None:
    dump = with_file("/data/x", volume="/data")
    assert held(read(dump)) == {"/", "/data"}


@pytest.mark.parametrize("dump", [with_watch("/srv"), with_odd_name(b"/l\xff/x"), with_odd_name(b"/l\\xff/x")])
def test_what_nobody_can_look_at_afterwards_holds_the_root(dump: SyntheticDump) -> None:
    assert held(read(dump)) == {"/"}
    with pytest.raises(Refused, match=r"that takes Linux 5.14") as failure:
        check_links(read(dump), root_unseen=False, kernel=OLD)
    assert failure.value.reason == "KernelUnfit"


def test_fifo_holds_the_root_for_criu_may_write_into_it() -> None:
    assert held(read(with_fifo("/srv/x"))) == {"/"}


def test_mount_is_held_whatever_the_dump_says_of_its_flags() -> None:
    """The flags that CRIU gets are the live pod's."""
    dump = with_socket("/run/app.sock")
    dump.add_mount("/data", ext_key=b"/data", flags=256)
    assert held(read(dump)) == {"/", "/data"}


def test_root_with_a_socket_below_var_run_is_not_held() -> None:
    assert held(read(with_socket("/run/app.sock"))) == {"/"}
    assert held(read(with_socket("/var/run/app.sock"))) == set()


def test_nothing_is_held_on_a_kernel_that_does_not_know_it() -> None:
    dump = with_file("/data/x", volume="/data")
    assert held(read(dump), OLD) == set()
    check_links(read(dump), root_unseen=False, kernel=OLD)


@pytest.mark.parametrize(("path", "kernel"), [("/data/x", NEW), ("/srv/x", OLD)])
def test_files_of_a_pod_that_may_mount_pass(path: str, kernel: str) -> None:
    check_volumes_of_mounters(read(with_file(path, volume="/data")), kernel)


def test_file_on_a_volume_of_a_pod_that_may_mount_takes_a_kernel_that_knows_it() -> None:
    with pytest.raises(Refused, match=r"that takes Linux 5.14") as failure:
        check_volumes_of_mounters(read(with_file("/data/x", volume="/data")), OLD)
    assert failure.value.reason == "KernelUnfit"


def test_socket_is_refused_on_a_kernel_that_does_not_know_it() -> None:
    found = read(with_socket("/run/app.sock"))
    check_links(found, root_unseen=True, kernel=NEW)
    with pytest.raises(Refused, match=r"that takes Linux 5.14") as failure:
        check_links(found, root_unseen=False, kernel=OLD)
    assert failure.value.reason == "KernelUnfit"


def test_socket_below_var_run_is_refused_where_the_root_is_not_there_yet() -> None:
    found = read(with_socket("/var/run/app.sock"))
    check_links(found, root_unseen=False, kernel=NEW)
    with pytest.raises(Refused, match="--format layered") as failure:
        check_links(found, root_unseen=True, kernel=NEW)
    assert failure.value.reason == "SocketExceeds"


def root(folder: Path, links: dict[str, str], folders: tuple[str, ...] = ("run", "srv")) -> list[Path]:
    for each in folders:
        (folder / each).mkdir(parents=True)
    for name, target in links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)
    return [folder]
