"""The dump's mounts against the request's, before CRIU rebuilds them.

CRIU restores the dumped mount tree and takes the source of each external mount from the live spec: a mount the request
lacks fails deep inside CRIU without a path, one that only the request has is silently absent, and flags come from the
dump (reference: CRIU mount.c, runc libcontainer/criu_linux.go addCriuRestoreMount).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from shared.errors import Refused
from shared.judge.paths import is_bind, is_read_only, where
from shared.judge.settings import privileged_differs
from shared.spec import Mount


class DeclaredMount(Protocol):
    """A mount as a request or a spec has it."""

    @property
    def destination(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def options(self) -> tuple[str, ...]: ...


EXPENDABLE = (
    "/dev/termination-log",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/var/run/secrets/kubernetes.io/serviceaccount",
    "/run/secrets/kubernetes.io/serviceaccount",
)
"""Mounts the kubelet or runtime adds by itself: when the dump has none, the restored container simply lacks them."""


def check_mounts(dumped: Sequence[Mount], requested: Sequence[DeclaredMount]) -> tuple[str, ...]:
    """Compares; returns what the restored container will lack, as sentences for the report.

    Raises Refused: MountMissing names every path the pod does not declare, MountUnexpected those only the pod has;
    PrivilegedDiffers where the runtime's own mounts give it away. Other access is put right (access.py).
    """
    _check_privileged(dumped, requested)
    ours = {where(mount.destination): mount for mount in requested if is_bind(mount.type, mount.options)}
    theirs = {where(mount.destination): mount for mount in dumped if is_bind(mount.type, mount.options)}
    if missing := [mount.destination for path, mount in theirs.items() if path not in ours]:
        raise Refused(
            "MountMissing",
            f"the checkpoint needs {_mounts(missing)}, which the pod does not declare; "
            "add to the container's volumeMounts what was mounted there",
        )
    extra = [mount.destination for path, mount in ours.items() if path not in theirs]
    expendable = {where(path) for path in EXPENDABLE}
    if unexpected := [path for path in extra if where(path) not in expendable]:
        raise Refused(
            "MountUnexpected",
            f"the pod declares {_mounts(unexpected)}, which the checkpointed container did not have and a restore "
            "cannot add; remove it from the container's volumeMounts",
        )
    return tuple(f"{path} is not in the checkpoint and will be missing in the restored container" for path in extra)


def _check_privileged(dumped: Sequence[Mount], requested: Sequence[DeclaredMount]) -> None:
    """The CRI mounts /sys writable in privileged containers alone (containerd pkg/oci, WithPrivileged mounts)."""
    was = next((not is_read_only(mount.options) for mount in dumped if mount.destination == "/sys"), None)
    asked = next((not is_read_only(mount.options) for mount in requested if mount.destination == "/sys"), None)
    if was is not None and asked is not None and was != asked:
        raise privileged_differs(dumped=was)


def _mounts(paths: Sequence[str]) -> str:
    return ("the mount " if len(paths) == 1 else "the mounts ") + ", ".join(sorted(paths))
