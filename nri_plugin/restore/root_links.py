"""Looks through a container's root file system for links on the way to what the processes have open, and to mounts.

The rule itself, which holds without looking, is that of shared/judge/links.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nri_plugin.restore.root_files import look_up
from shared.criu.dump import Dump
from shared.errors import Refused
from shared.judge.links import RUN, by_run, file_paths, followed_paths, socket_paths
from shared.judge.paths import below, spelt_once, where


def check_root_links(dump: Dump, directories: Sequence[Path]) -> None:
    """Raises Refused("FileExceeds") for a file, deleted ones included, or a socket by way of a link in the root.

    ``directories``: the root's, topmost first.
    """
    own = dump.root.ids.mnt_ns
    if by_run(dump):
        (run,) = look_up(directories, [RUN]).values()
        if run is not None and run.kind == "symbolic link" and run.target not in ("/run", "../run"):
            raise _leads_elsewhere(RUN)
    paths = [*file_paths(dump), *((where(path), own) for path in socket_paths(dump))]
    if by_run(dump) and (odd := sorted(path for path, _ in paths if "\\" in path)):
        raise _leads_elsewhere(odd[0])  # as names that are no UTF-8 are read; their own cannot be looked up
    mountpoints: dict[int, list[str]] = {}
    for mount in dump.mounts:
        if mount.mountpoint != "/":
            mountpoints.setdefault(mount.namespace, []).append(spelt_once(mount.mountpoint))
    paths += [(mount.mountpoint, mount.namespace) for mount in dump.mounts]
    every = {(str(parent), namespace) for path, namespace in paths for parent in Path(spelt_once(path)).parents}
    folders = {path for path, namespace in every if not below(path, mountpoints.get(namespace, ()))}
    for folder, found in look_up(directories, sorted(folders)).items():
        if found is not None and found.kind != "directory":
            raise _leads_elsewhere(folder)
    _check_ends(dump, directories, mountpoints)


def _check_ends(dump: Dump, directories: Sequence[Path], mountpoints: Mapping[int, Sequence[str]]) -> None:
    """CRIU follows a link at the end of a path as well, unless that is what was open (criu/files-reg.c, open_path)."""
    paths = {(spelt_once(path), namespace) for path, namespace in followed_paths(dump)}
    in_root = {path for path, namespace in paths if not below(path, mountpoints.get(namespace, ()))}
    for path, found in look_up(directories, sorted(in_root)).items():
        if found is not None and found.kind == "symbolic link":
            raise Refused(
                "FileExceeds",
                f"the checkpoint has {path} open, which is a link in the root file system; such a file cannot be "
                "restored",
            )


def _leads_elsewhere(path: str) -> Refused:
    return Refused(
        "FileExceeds",
        f"the checkpoint has files or sockets by way of {path}, which is no directory in the root file system; such "
        "files cannot be restored",
    )
