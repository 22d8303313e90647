from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nri_plugin.restore.root_links import check_root_links
from shared.archive import CheckpointFiles, open_checkpoint
from shared.criu import criu_pb2 as pb
from shared.criu.dump import Dump, read_dump
from shared.errors import Refused
from tests.support.checkpoints import SyntheticDump, containerd, write_directory

Dumped = Callable[[SyntheticDump], CheckpointFiles]


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


def with_watch(path: str) -> SyntheticDump:
    dump = SyntheticDump.of_processes()
    handle = pb.FhEntry(path=path.encode(), mnt_id=dump.mount_of(path).mnt_id)
    watcher = pb.InotifyFileEntry(id=77, wd=[pb.InotifyWdEntry(wd=1, f_handle=handle)])
    dump.add_file(pb.FileEntry(type=8, id=77, ify=watcher), descriptor=9)
    return dump


def read(dump: SyntheticDump, dumped: Dumped) -> Dump:
    return read_dump(dumped(dump))


def root(folder: Path, links: dict[str, str], folders: tuple[str, ...] = ("run", "srv")) -> list[Path]:
    for each in folders:
        (folder / each).mkdir(parents=True)
    for name, target in links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)
    return [folder]


@pytest.mark.parametrize(
    "dump", [with_file("/srv/x"), with_file("/gone/x"), with_socket("/srv/x"), with_socket("/var/run/x")]
)
def test_ordinary_paths_pass(dump: SyntheticDump, dumped: Dumped, tmp_path: Path) -> None:
    check_root_links(read(dump, dumped), root(tmp_path, {"var/run": "../run", "other": "/etc"}))


@pytest.mark.parametrize(
    ("dump", "links"),
    [
        (with_file("/link/x"), {"link": "/etc"}),
        (with_watch("/link/x"), {"link": "/etc"}),
        (with_file("/srv/a/b/x"), {"srv/a": "/proc/self/fd"}),
        (with_socket("/link/x"), {"link": "/etc"}),
        (with_socket("/var/run/x"), {"var/run": "/etc"}),
        (with_socket("/var/run/a/x"), {"var/run": "/run", "run/a": "/etc"}),
    ],
)
def test_path_by_way_of_a_link_is_refused(
    dump: SyntheticDump, links: dict[str, str], dumped: Dumped, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="no directory in the root file system") as failure:
        check_root_links(read(dump, dumped), root(tmp_path, links))
    assert failure.value.reason == "FileExceeds"


@pytest.mark.parametrize("other", ["/srv/x", "/\\xff/x"])
def test_name_that_cannot_be_looked_up_is_refused_where_the_root_follows(
    other: str, dumped: Dumped, tmp_path: Path
) -> None:
    """Names that are no UTF-8 are read as others."""
    dump = with_socket("/var/run/x")
    reg = pb.RegFileEntry(id=78, name=other.encode(), mnt_id=dump.mount("/").mnt_id, mode=0o100644)
    dump.add_file(pb.FileEntry(type=1, id=78, reg=reg), descriptor=10)
    directories = root(tmp_path, {"var/run": "/run"})
    if other == "/srv/x":
        check_root_links(read(dump, dumped), directories)
        return
    with pytest.raises(Refused, match="no directory in the root file system"):
        check_root_links(read(dump, dumped), directories)


def test_links_below_a_volume_are_the_volumes(dumped: Dumped, tmp_path: Path) -> None:
    """What the image has there is covered."""
    dump = with_file("/data/current/x")
    dump.add_mount("/data", ext_key=b"/data")
    check_root_links(read(dump, dumped), root(tmp_path, {"data/current": "/etc"}))
