"""Looks through a container's root file system for links on the way to what the processes have open.

The rule itself, which holds without looking, is that of shared/judge/links.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nri_plugin.restore.root_files import look_up
from shared.criu.dump import Dump
from shared.errors import Refused
from shared.judge.links import RUN, by_run, file_paths, socket_paths
from shared.judge.paths import below, spelt_once, where


def check_root_links(dump: Dump, directories: Sequence[Path]) -> None:
    """Raises Refused("FileExceeds") for a file, deleted ones included, or a socket by way of a link in the root.

    ``directories``: the root's, topmost first.
    """
    if by_run(dump):
        (run,) = look_up(directories, [RUN]).values()
        if run is not None and run.kind == "symbolic link" and run.target not in ("/run", "../run"):
            raise _leads_elsewhere(RUN)
    paths = file_paths(dump)
    paths |= {where(path) for path in socket_paths(dump)}
    if by_run(dump) and (odd := sorted(path for path in paths if "\\" in path)):
        raise _leads_elsewhere(odd[0])  # as names that are no UTF-8 are read; their own cannot be looked up
    mountpoints = [spelt_once(mount.mountpoint) for mount in dump.mounts if mount.mountpoint != "/"]
    every = {str(parent) for path in paths for parent in Path(spelt_once(path)).parents}
    folders = {folder for folder in every if not below(folder, mountpoints)}
    for folder, found in look_up(directories, sorted(folders)).items():
        if found is not None and found.kind != "directory":
            raise _leads_elsewhere(folder)


def _leads_elsewhere(path: str) -> Refused:
    return Refused(
        "FileExceeds",
        f"the checkpoint has files or sockets by way of {path}, which is no directory in the root file system; such "
        "files cannot be restored",
    )
