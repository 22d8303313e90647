"""Whether the files that processes have open lie where the dump says.

CRIU opens a file by its path alone, as root, and follows links on the way (criu/files-reg.c, do_open_reg). With a link
in the container's own files, a path that looks harmless may lead to a masked file before it is covered again, or by way
of /proc/self/fd to what CRIU itself has open of the node. A path that the kernel told has no link in it, and lies on
the innermost mount there. Who may mount (CAP_SYS_ADMIN) may have files on mounts that others hide; for those there is
no link on the way either, on no mount (links.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Set

from shared.criu.dump import Dump
from shared.criu.open_files import NOT_RECORDED, RegularFile, Watch, Watcher
from shared.errors import Refused
from shared.judge.paths import may_mount, spelt_once
from shared.judge.tmpfs_links import TmpfsLinks
from shared.spec import RuntimeSpec


def place_refusals(dump: Dump, live: RuntimeSpec, links: Set[str]) -> Iterator[Refused]:
    """FileExceeds, for open files and watched ones.

    ``links``: of the tmpfs mounts that CRIU fills; those of the root are looked at with its files.
    """
    for file in _files(dump):
        if file.id in dump.linked and file.mode is not None:
            # CRIU gives it a second name, opens it by that, and shows it as deleted (files-reg.c, rfi_remap).
            yield foreign(f"{file.path}, by another name than the one it was opened by,")
    known = TmpfsLinks(dump, links)
    for name, _ in _places(dump):
        if known.lead_to(spelt_once(name)):
            yield foreign(f"{name}, by way of a link,")
    if may_mount(live):
        return
    mounts = {mount.id: mount for mount in dump.mounts}
    points = {(mount.namespace, spelt_once(mount.mountpoint)) for mount in dump.mounts}
    root = next((mount.id for mount in dump.mounts if mount.mountpoint == "/"), NOT_RECORDED)
    for name, number in _places(dump):
        path = spelt_once(name)
        mount = mounts.get(root if number == NOT_RECORDED else number)
        if mount is None or _innermost(points, mount.namespace, path) != spelt_once(mount.mountpoint):
            yield foreign(f"{name}, a file on another mount than the one there,")


def to_look_at(dump: Dump, live: RuntimeSpec, *, anyway: bool) -> tuple[str, ...]:
    """Paths of all files where CRIU opens some in what may have got links since: a volume.

    Only what it has opened then tells where they lie. Empty where there is nothing to look at. ``anyway``: whether
    there is some other reason to look, such as a root that nobody saw.
    """
    paths = tuple(sorted({file.path for file in _files(dump)}))
    return paths if (opens_on_volumes(dump) or anyway) and not may_mount(live) else ()


def opens_on_volumes(dump: Dump) -> bool:
    """Whether some file is open, or watched, below what the runtime mounts.

    A mount that is a single file has nothing on the way.
    """
    volumes = {mount.id: spelt_once(mount.mountpoint) for mount in dump.mounts if mount.external is not None}
    return any(mount in volumes and spelt_once(path) != volumes[mount] for path, mount in _places(dump))


def watches(dump: Dump) -> tuple[Watch, ...]:
    """What processes are told about: no process has these open, so nobody can look at what CRIU has found there."""
    return tuple(watch for file in dump.files if isinstance(file, Watcher) for watch in file.watches)


def foreign(what: str) -> Refused:
    return Refused(
        "FileExceeds",
        f"the checkpoint has {what} open that does not belong to the container; such a file cannot be restored",
    )


def _places(dump: Dump) -> Iterator[tuple[str, int]]:
    """Path, and number of the mount, of all that CRIU opens by a path that the kernel told."""
    yield from ((file.path, file.mount) for file in _files(dump))
    yield from ((watch.path, watch.mount) for watch in watches(dump))


def _files(dump: Dump) -> list[RegularFile]:
    return [file for file in dump.files if isinstance(file, RegularFile)]


def _innermost(points: Set[tuple[int, str]], namespace: int, path: str) -> str:
    while path != "/" and (namespace, path) not in points:
        path = path.rpartition("/")[0] or "/"
    return path
