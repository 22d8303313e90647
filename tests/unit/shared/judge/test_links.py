from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from shared.archive import CheckpointFiles, open_checkpoint
from shared.criu import criu_pb2 as pb
from shared.criu.dump import Dump, read_dump
from shared.errors import Refused
from shared.judge.links import check_links, check_volumes_of_mounters, held_mounts
from tests.support.checkpoints import SyntheticDump, containerd, write_directory

Dumped = Callable[[SyntheticDump], CheckpointFiles]
OLD, NEW = "5.13.19-generic", "5.14.0-70.el9"


@pytest.fixture
def dumped(tmp_path: Path) -> Iterator[Dumped]:
    with ExitStack() as stack:

        def opener(dump: SyntheticDump) -> CheckpointFiles:
            folder = tmp_path / f"dump-{len(list(tmp_path.iterdir()))}"
            return stack.enter_context(open_checkpoint(write_directory(folder, containerd(dump))))

        yield opener


def with_socket(path: str) -> SyntheticDump:
    dump = SyntheticDump.of_processes()
    dump.add_file(
        pb.FileEntry(type=5, id=77, usk=pb.UnixSkEntry(id=77, ino=9, type=1, state=10, name=path.encode())),
        descriptor=9,
    )
    return dump


def with_file(path: str, volume: str | None = None) -> SyntheticDump:
    dump = SyntheticDump.of_processes()
    if volume:
        dump.add_mount(volume, ext_key=volume.encode())
    reg = pb.RegFileEntry(id=77, name=path.encode(), mnt_id=dump.mount_of(path).mnt_id, mode=0o100644)
    dump.add_file(pb.FileEntry(type=1, id=77, reg=reg), descriptor=9)
    return dump


def held(dump: Dump, kernel: str = NEW, *, may_mount: bool = False) -> set[str]:
    return {mount.mountpoint for mount in held_mounts(dump, kernel, may_mount=may_mount)}


def read(dump: SyntheticDump, dumped: Dumped) -> Dump:
    return read_dump(dumped(dump))


def test_root_and_volumes_are_held_and_nothing_else(dumped: Dumped) -> None:
    dump = with_socket("/run/app.sock")
    dump.add_mount("/data", ext_key=b"/data", flags=2)
    dump.add_mount("/proc/kcore", ext_key=b"/dev/null")
    assert held(read(dump, dumped)) == {"/", "/data"}


def test_nothing_is_held_for_files_of_the_root_alone(dumped: Dumped) -> None:
    dump = with_file("/srv/x")
    dump.add_mount("/data", ext_key=b"/data")
    assert held(read(dump, dumped)) == set()


def test_all_is_held_where_the_pod_may_mount(dumped: Dumped) -> None:
    """A file of the dump may be on another mount then than its path says."""
    dump = with_file("/srv/x")
    dump.add_mount("/data", ext_key=b"/data")
    assert held(read(dump, dumped), may_mount=True) == {"/", "/data"}


def test_copies_in_a_mount_namespace_of_a_process_are_held_too(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes(2)
    dump.add_mount("/data", ext_key=b"/data")
    dump.nest_mounts(2)
    nested = held_mounts(read(dump, dumped), NEW, may_mount=True)
    assert [(mount.namespace, mount.mountpoint) for mount in nested if mount.namespace != 13] == [
        (14, "/"),
        (14, "/data"),
    ]


def test_open_file_of_a_volume_holds_them(dumped: Dumped) -> None:
    dump = with_file("/data/x", volume="/data")
    assert held(read(dump, dumped)) == {"/", "/data"}


def with_watch(path: str) -> SyntheticDump:
    dump = SyntheticDump.of_processes()
    handle = pb.FhEntry(path=path.encode(), mnt_id=dump.mount_of(path).mnt_id)
    watcher = pb.InotifyFileEntry(id=77, wd=[pb.InotifyWdEntry(wd=1, f_handle=handle)])
    dump.add_file(pb.FileEntry(type=8, id=77, ify=watcher), descriptor=9)
    return dump


def with_odd_name(name: bytes) -> SyntheticDump:
    dump = with_file("/srv/x")
    dump.images["files.img"][-1].reg.name = name  # type: ignore[attr-defined]
    return dump


@pytest.mark.parametrize("dump", [with_watch("/srv"), with_odd_name(b"/l\xff/x"), with_odd_name(b"/l\\xff/x")])
def test_what_nobody_can_look_at_afterwards_holds_the_root(dump: SyntheticDump, dumped: Dumped) -> None:
    assert held(read(dump, dumped)) == {"/"}
    with pytest.raises(Refused, match=r"that takes Linux 5.14") as failure:
        check_links(read(dump, dumped), root_unseen=False, kernel=OLD)
    assert failure.value.reason == "KernelUnfit"


def with_fifo(path: str) -> SyntheticDump:
    dump = with_file(path)
    dump.images["files.img"][-1].reg.mode = 0o010600  # type: ignore[attr-defined]
    dump.add_file(pb.FileEntry(type=3, id=78, fifo=pb.FifoEntry(id=78, pipe_id=5, regf_id=77)), descriptor=10)
    return dump


def test_fifo_holds_the_root_for_criu_may_write_into_it(dumped: Dumped) -> None:
    assert held(read(with_fifo("/srv/x"), dumped)) == {"/"}


def test_mount_is_held_whatever_the_dump_says_of_its_flags(dumped: Dumped) -> None:
    """The flags that CRIU gets are the live pod's."""
    dump = with_socket("/run/app.sock")
    dump.add_mount("/data", ext_key=b"/data", flags=256)
    assert held(read(dump, dumped)) == {"/", "/data"}


def test_root_with_a_socket_below_var_run_is_not_held(dumped: Dumped) -> None:
    assert held(read(with_socket("/run/app.sock"), dumped)) == {"/"}
    assert held(read(with_socket("/var/run/app.sock"), dumped)) == set()


def test_nothing_is_held_on_a_kernel_that_does_not_know_it(dumped: Dumped) -> None:
    dump = with_file("/data/x", volume="/data")
    assert held(read(dump, dumped), OLD) == set()
    check_links(read(dump, dumped), root_unseen=False, kernel=OLD)


@pytest.mark.parametrize(("path", "kernel"), [("/data/x", NEW), ("/srv/x", OLD)])
def test_files_of_a_pod_that_may_mount_pass(path: str, kernel: str, dumped: Dumped) -> None:
    check_volumes_of_mounters(read(with_file(path, volume="/data"), dumped), kernel)


def test_file_on_a_volume_of_a_pod_that_may_mount_takes_a_kernel_that_knows_it(dumped: Dumped) -> None:
    with pytest.raises(Refused, match=r"that takes Linux 5.14") as failure:
        check_volumes_of_mounters(read(with_file("/data/x", volume="/data"), dumped), OLD)
    assert failure.value.reason == "KernelUnfit"


def test_socket_is_refused_on_a_kernel_that_does_not_know_it(dumped: Dumped) -> None:
    found = read(with_socket("/run/app.sock"), dumped)
    check_links(found, root_unseen=True, kernel=NEW)
    with pytest.raises(Refused, match=r"that takes Linux 5.14") as failure:
        check_links(found, root_unseen=False, kernel=OLD)
    assert failure.value.reason == "KernelUnfit"


def test_socket_below_var_run_is_refused_where_the_root_is_not_there_yet(dumped: Dumped) -> None:
    found = read(with_socket("/var/run/app.sock"), dumped)
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
