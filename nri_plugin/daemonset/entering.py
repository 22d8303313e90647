"""Into the node's mount namespace, where every path is what the runtime and its containers see.

Bind mounts of single folders would not do: where the runtime keeps snapshots and bundles is configured, and what the
daemon mounts must appear there. Process 1 is the node's with hostPID, which is why the pod has it. Source: setns(2).
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

from shared.errors import Refused, Unavailable

_CLONE_NEWNS: Final = 0x00020000
"""sched.h"""


def enter_node() -> None:
    """Goes there for good; raises Refused("HostPidMissing"), Unavailable("NodeNotEntered")."""
    if os.getpid() == 1:
        raise Refused("HostPidMissing", "this pod does not see the node's processes; it needs hostPID: true")
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        namespace = os.open("/proc/1/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(namespace, _CLONE_NEWNS):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(namespace)
    except OSError as error:
        raise Unavailable(
            "NodeNotEntered", f"the node's mount namespace: {error.strerror}; the pod must be privileged"
        ) from error


def kept(path: Path) -> Path | None:
    """A name under which a folder of the container is found from the node too, also by child processes."""
    if not path.is_dir():
        return None
    descriptor = os.open(path, os.O_PATH)
    os.set_inheritable(descriptor, True)
    return Path(f"/proc/{os.getpid()}/fd/{descriptor}")
