"""What the daemon keeps between restores, dropped when a node is taken out of use."""

from __future__ import annotations

import os
import shutil
from contextlib import closing

from nri_plugin.config import Config
from nri_plugin.containerd.client import Containerd
from nri_plugin.instance import only_instance
from nri_plugin.restore import mounting
from nri_plugin.restore.images import LEASE_PREFIX
from nri_plugin.restore.plan import plans_in
from shared.errors import Refused


def drop_leftovers(config: Config) -> None:
    """Unmounts views, deletes plans and our leases, with which the runtime collects root file systems and images.

    Raises Refused("HandlerInUse") while a restored container needs them; Unavailable: AlreadyRunning while the daemon
    does, NodeStorageFailed, when something cannot be unmounted, or when the runtime does not answer.
    """
    plans, runtime = config.paths.plans, config.runtime
    if any(plan.runs for plan in plans_in(plans)):
        raise Refused("HandlerInUse", "restored containers run on this node; delete their pods, then do this again")
    lock = only_instance(config)
    try:
        for entry in plans.iterdir():
            if entry.is_dir():
                mounting.delete_tree(entry)
    finally:
        os.close(lock)
    if runtime.name == "containerd" and runtime.socket.exists():
        with closing(
            Containerd(runtime.socket, namespace=runtime.namespace, snapshotter=runtime.snapshotter)
        ) as containerd:
            for lease in containerd.leases(LEASE_PREFIX):
                containerd.delete_lease(lease.id)
    for name in ("images", "pulls"):
        shutil.rmtree(config.paths.state / name, ignore_errors=True)
