"""The pod's own host name survives a restore: CRIU is not told that the dump had a UTS namespace of its own.

CRIU sets the dumped host and domain name in the UTS namespace it joins (criu/uts_ns.c prepare_utsns), which the pod's
containers share, and with hostNetwork the whole node. It does so only when the root task's namespace is another than
that of the CRIU that dumped (criu/pstree.c prepare_pstree_kobj_ids); the runtime joins the pod's namespace either way.
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.criu.criu_pb2 import TaskKobjIdsEntry
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind, join


def without_host_name(images: ImageDirectory, dump: Dump) -> Mapping[str, bytes]:
    """The images, by name, to use in place of the dump's so that a restore sets no host name; often all ids images."""
    own, dumpers = dump.root.ids.uts_ns, dump.inventory.ids.uts_ns
    replaced = {}
    for task in dump.tasks:
        if own != dumpers and task.ids.uts_ns == own:
            ids = images.one(Kind.IDS, TaskKobjIdsEntry, task.pid)
            ids.uts_ns_id = dumpers
            replaced[Kind.IDS.file(task.pid)] = join(Kind.IDS, [ids])
    return replaced
