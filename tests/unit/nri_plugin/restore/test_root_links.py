from __future__ import annotations

from pathlib import Path

import pytest

from nri_plugin.restore.root_links import check_root_links
from shared.criu import criu_pb2 as pb
from shared.errors import Refused
from tests.support.checkpoints import SyntheticDump
from tests.support.paths_in_dumps import with_fifo, with_file, with_socket, with_watch
from tests.support.pods import read


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
def test_ordinary_paths_pass(dump: SyntheticDump, tmp_path: Path) -> None:
    check_root_links(read(dump), root(tmp_path, {"var/run": "../run", "other": "/etc"}))


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
def test_path_by_way_of_a_link_is_refused(dump: SyntheticDump, links: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no directory in the root file system") as failure:
        check_root_links(read(dump), root(tmp_path, links))
    assert failure.value.reason == "FileExceeds"


@pytest.mark.parametrize("other", ["/srv/x", "/\\xff/x"])
def test_name_that_cannot_be_looked_up_is_refused_where_the_root_follows(other: str, tmp_path: Path) -> None:
    """Names that are no UTF-8 are read as others."""
    dump = with_socket("/var/run/x")
    reg = pb.RegFileEntry(id=78, name=other.encode(), mnt_id=dump.mount("/").mnt_id, mode=0o100644)
    dump.add_file(pb.FileEntry(type=1, id=78, reg=reg), descriptor=10)
    directories = root(tmp_path, {"var/run": "/run"})
    if other == "/srv/x":
        check_root_links(read(dump), directories)
        return
    with pytest.raises(Refused, match="no directory in the root file system"):
        check_root_links(read(dump), directories)


@pytest.mark.parametrize("dump", [with_file("/srv/x"), with_fifo("/srv/x"), with_watch("/srv/x")])
def test_link_at_the_end_of_a_path_is_refused(dump: SyntheticDump, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="/srv/x open, which is a link") as failure:
        check_root_links(read(dump), root(tmp_path, {"srv/x": "/proc/self/fd/126/../../etc"}))
    assert failure.value.reason == "FileExceeds"


def test_link_that_is_open_itself_passes(tmp_path: Path) -> None:
    dump = with_file("/srv/x")
    dump.images["files.img"][-1].reg.mode = 0o120777  # type: ignore[attr-defined]
    check_root_links(read(dump), root(tmp_path, {"srv/x": "/etc"}))


def test_mount_by_way_of_a_link_is_refused(tmp_path: Path) -> None:
    """CRIU would mount it in its own root directory."""
    dump = with_file("/srv/x")
    dump.add_mount("/link/data", ext_key=b"/link/data")
    with pytest.raises(Refused, match="by way of /link"):
        check_root_links(read(dump), root(tmp_path, {"link": "/usr"}))


def test_mount_of_another_namespace_covers_nothing(tmp_path: Path) -> None:
    dump = SyntheticDump.of_processes(2)
    dump.nest_mounts(2)
    mounts: list[pb.MntEntry] = dump.images["mountpoints-14.img"]  # type: ignore[assignment]
    top = next(entry for entry in mounts if entry.mountpoint == b"/")
    mounts.append(pb.MntEntry(fstype=5, mnt_id=5000, root_dev=900, parent_mnt_id=top.mnt_id, root=b"/"))
    mounts[-1].mountpoint = b"/srv"
    reg = pb.RegFileEntry(id=77, name=b"/srv/a/x", mnt_id=dump.mount("/").mnt_id, mode=0o100644)
    dump.add_file(pb.FileEntry(type=1, id=77, reg=reg), descriptor=9)
    with pytest.raises(Refused, match="by way of /srv/a"):
        check_root_links(read(dump), root(tmp_path, {"srv/a": "/etc"}))


def test_links_below_a_volume_are_the_volumes(tmp_path: Path) -> None:
    """What the image has there is covered."""
    dump = with_file("/data/current/x")
    dump.add_mount("/data", ext_key=b"/data")
    check_root_links(read(dump), root(tmp_path, {"data/current": "/etc"}))
