"""The dump's mounts against the request's, before CRIU rebuilds them.

CRIU restores the dumped mount tree and takes the source of each external mount from the live spec: a mount the request
lacks fails deep inside CRIU without a path, one that only the request has is silently absent, and flags come from the
dump (reference: CRIU mount.c, runc libcontainer/criu_linux.go addCriuRestoreMount).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from nri_plugin.restore.request import RequestMount
from shared.errors import Refused
from shared.spec import Mount

EXPENDABLE = (
    "/dev/termination-log",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/var/run/secrets/kubernetes.io/serviceaccount",
    "/run/secrets/kubernetes.io/serviceaccount",
)
"""Mounts the kubelet or runtime adds by itself: when the dump has none, the restored container simply lacks them."""


def _is_bind(type_: str, options: Sequence[str]) -> bool:
    return type_ == "bind" or "bind" in options or "rbind" in options


def _where(path: str) -> str:
    """One spelling a destination: /var/run is a link to /run in every image that matters to runc's own resolution."""
    clean = str(PurePosixPath("/", path))
    return clean.replace("/var/run/", "/run/", 1) if clean.startswith("/var/run/") else clean


def check_mounts(dumped: Sequence[Mount], requested: Sequence[RequestMount]) -> tuple[str, ...]:
    """Compares; returns what the restored container will lack, as sentences for the report.

    Raises Refused: MountMissing names every path the pod does not declare, MountReadOnly and MountReadWrite those
    declared with other access than dumped, MountUnexpected those only the pod has.
    """
    ours = {_where(mount.destination): mount for mount in requested if _is_bind(mount.type, mount.options)}
    theirs = {_where(mount.destination): mount for mount in dumped if _is_bind(mount.type, mount.options)}
    if missing := [mount.destination for path, mount in theirs.items() if path not in ours]:
        raise Refused(
            "MountMissing",
            f"the checkpoint needs {_mounts(missing)}, which the pod does not declare; "
            "add to the container's volumeMounts what was mounted there",
        )
    tightened = [path for path, mount in theirs.items() if ours[path].read_only and "ro" not in mount.options]
    if tightened:
        raise Refused(
            "MountReadOnly",
            f"the pod declares {_mounts(tightened)} read-only, but in the checkpoint writing is allowed and a restore "
            "would bring that back; remove readOnly there or take a new checkpoint",
        )
    loosened = [path for path, mount in theirs.items() if not ours[path].read_only and "ro" in mount.options]
    if loosened:
        raise Refused(
            "MountReadWrite",
            f"the pod declares {_mounts(loosened)} writable, but in the checkpoint it is read-only and a restore keeps "
            "that; set readOnly there or take a new checkpoint",
        )
    extra = [mount.destination for path, mount in ours.items() if path not in theirs]
    expendable = {_where(path) for path in EXPENDABLE}
    if unexpected := [path for path in extra if _where(path) not in expendable]:
        raise Refused(
            "MountUnexpected",
            f"the pod declares {_mounts(unexpected)}, which the checkpointed container did not have and a restore "
            "cannot add; remove it from the container's volumeMounts",
        )
    return tuple(f"{path} is not in the checkpoint and will be missing in the restored container" for path in extra)


def _mounts(paths: Sequence[str]) -> str:
    return ("the mount " if len(paths) == 1 else "the mounts ") + ", ".join(sorted(paths))
