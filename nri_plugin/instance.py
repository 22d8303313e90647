"""The lock that the one nri-restore of a node holds: two would undo each other."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from nri_plugin.config import Config
from shared.errors import Unavailable

LOCK: Final = "daemon.lock"
"""Among the plans."""


def only_instance(config: Config) -> int:
    """Locks the node for this process, until it closes what is returned.

    Raises Unavailable: AlreadyRunning, NodeStorageFailed.
    """
    plans = config.paths.plans
    try:
        plans.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(plans / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(
            "NodeStorageFailed", f"{plans} cannot be written: {error.strerror}; see paths.plans"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise Unavailable("AlreadyRunning", "another nri-restore runs on this node; stop it first") from error
    return descriptor


def runs_on(plans: Path) -> bool:
    """Whether somebody holds the lock; raises FileNotFoundError where nobody ever did."""
    descriptor = os.open(plans / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
