"""What the daemon keeps between restores, dropped when a node is taken out of use."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import closing

from nri_plugin.config import Config
from nri_plugin.containerd.client import Containerd
from nri_plugin.restore import mounting
from nri_plugin.restore.images import LEASE_PREFIX
from nri_plugin.restore.plan import plans_in


def drop_leftovers(config: Config) -> bool:
    """Unmounts views, deletes plans and our leases, with which the runtime collects root file systems and images.

    Returns False, and does nothing, while the daemon runs or a restored container needs them.
    Raises Unavailable when something cannot be unmounted, or the runtime does not answer.
    """
    plans, runtime = config.paths.plans, config.runtime
    if any(plan.has("restored") for plan in plans_in(plans)):
        return False
    plans.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(plans / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for entry in plans.iterdir():
            if entry.is_dir():
                mounting.delete_tree(entry)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    if runtime.name == "containerd" and runtime.socket.exists():
        with closing(
            Containerd(runtime.socket, namespace=runtime.namespace, snapshotter=runtime.snapshotter)
        ) as containerd:
            for lease in containerd.leases(LEASE_PREFIX):
                containerd.delete_lease(lease.id)
    shutil.rmtree(config.paths.state / "images", ignore_errors=True)
    return True
