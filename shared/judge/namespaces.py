"""Which namespaces the restored tree would be in against those the live container gets, and what CRIU is told of them.

CRIU makes a new namespace of a kind only where the dump had its own one; otherwise the tree stays in the namespace
that CRIU itself runs in (criu/namespaces.c, root_ns_mask). That is the node's, but for those that the runtime joins
first: the pod's UTS, IPC and network namespace. CRIU sets a namespace up as the dump says only where it knows of it,
so of the pod's UTS namespace it learns nothing, and of the IPC namespace only where objects must be made in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from shared.criu.dump import Dump
from shared.criu.task_ids import TaskIds
from shared.criu.tasks import Task
from shared.errors import Refused
from shared.spec import Namespace, RuntimeSpec

_KINDS: Final = {
    "pid": "pid_ns",
    "network": "net_ns",
    "ipc": "ipc_ns",
    "uts": "uts_ns",
    "mount": "mnt_ns",
    "user": "user_ns",
    "cgroup": "cgroup_ns",
    "time": "time_ns",
}
"""Type in the runtime spec, field of TaskIds."""
_LEFT_OUT: Final = ("mount", "user", "time")
"""A runtime spec always has the first; the second has a rule of its own; the third every restored container has, from
CRIU, so its next checkpoint must do: CRIU sets the clocks in one that it makes, and cannot set the node's."""
_OPENED: Final = ("network", "uts")
"""A hostNetwork pod may take in what ran in a pod's network: it asks for more than the dump had, the host name is not
restored, and without a connection to keep CRIU does not touch the network."""
_NUMBER_MAX: Final = 0xFFFFFFFF
NETWORK_KEY: Final = "extRootNetNS"
"""Under which runc hands the pod's network in (libcontainer/criu_linux.go handleRestoringNamespaces)."""
PROCESS_KEY: Final = "extRootPidNS"
"""Likewise the PID namespace that the pod's containers share."""
_PROC: Final = {"network": "net", "mount": "mnt"}
"""Names below /proc/<pid>/ns that differ from the spec's."""
_SHARING: Final = {"network": "hostNetwork", "uts": "hostNetwork", "pid": "hostPID", "ipc": "hostIPC"}
"""What makes a pod share the node's."""


def is_the_nodes(namespace: Namespace) -> bool:
    """Whether the live container shares this one with the node: a hostNetwork pod's spec names it by path too.

    Read as the daemon, which runs in the node's own namespaces.
    """
    if not namespace.path:
        return False
    own = Path("/proc/self/ns") / _PROC.get(namespace.type, namespace.type)
    try:
        return Path(namespace.path).stat().st_ino == own.stat().st_ino
    except OSError:
        return False


def namespace_refusals(
    dump: Dump, live: RuntimeSpec, *, shared: Callable[[Namespace], bool] = is_the_nodes
) -> Iterator[Refused]:
    """NamespacesDiffer when the tree would join the node's, or make one that nobody handed in; NestedNamespaces."""
    root, outside = dump.root.ids, dump.inventory.ids
    own = {namespace.type for namespace in live.namespaces if not shared(namespace)}
    for kind, field in _KINDS.items():
        inner, outer = getattr(root, field), getattr(outside, field)
        if kind in own and inner and inner == outer:
            sharing = _SHARING.get(kind)
            yield Refused(
                "NamespacesDiffer",
                f"the pod gives the container a {kind} namespace of its own, the checkpoint would restore "
                f"into the node's; {f'set {sharing}: true, or ' if sharing else ''}take the checkpoint from a "
                "container of such a pod",
            )
        elif kind not in own and kind not in _LEFT_OUT and inner and inner != outer:
            if kind in _OPENED and not dump.sockets_established:
                continue
            # CRIU would set kernel limits in what it takes for the container's, and lock the node's whole network.
            yield Refused(
                "NamespacesDiffer",
                f"the checkpointed container had a {kind} namespace of its own, the pod's container has the node's; "
                "take the checkpoint from a container of such a pod",
            )
    if dump.user_namespace:
        yield Refused(
            "NamespacesDiffer",
            "the checkpointed container had a user namespace of its own; CRIU would map users as the checkpoint says, "
            "not as the node does, so take the checkpoint from a pod without hostUsers: false",
        )
    if root.net_ns != outside.net_ns and dump.pod.network_key != NETWORK_KEY:
        yield Refused(
            "NamespacesDiffer",
            "the checkpoint would make a network namespace and set up addresses, routes and firewall in it, instead of "
            "using the pod's; take the checkpoint from a container of a pod",
        )
    yield from _process_refusals(dump, live)
    yield from _nested_refusals(dump, live)


def _process_refusals(dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """The PID namespace is the pod's exactly where it is handed in; else CRIU makes one."""
    if dump.root.ids.pid_ns == dump.inventory.ids.pid_ns:
        return
    joined = any(namespace.type == "pid" and namespace.path for namespace in live.namespaces)
    if dump.pod.process_key not in (None, PROCESS_KEY) or bool(dump.pod.process_key) != joined:
        yield Refused(
            "NamespacesDiffer",
            f"the checkpoint {'shares' if dump.pod.process_key else 'does not share'} its processes with its pod, and "
            f"this pod's container is to be otherwise; set shareProcessNamespace: {'false' if joined else 'true'}",
        )


def _nested_refusals(dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    if not dump.nested_namespaces:
        return
    root = dump.root.ids
    if "CAP_SYS_ADMIN" not in live.capabilities.bounding:
        yield Refused(
            "NestedNamespaces",
            "some process of the checkpoint is in namespaces of its own inside the container, which takes "
            "CAP_SYS_ADMIN and the pod does not grant it; add it to the container's capabilities if that is meant",
        )
    elif any(replace(task.ids, mnt_ns=root.mnt_ns).namespaces != root.namespaces for task in dump.tasks if task.alive):
        # Of network namespaces CRIU could make more, but only with programs of the node that do as the dump says.
        yield Refused(
            "NestedNamespaces",
            "some process of the checkpoint is in a namespace of its own inside the container that is no mount "
            "namespace, and CRIU cannot make that again; take a new checkpoint when no process is in such a one",
        )


def outside_namespaces(dump: Dump) -> TaskIds:
    """What the inventory says of the dumping CRIU's namespaces, of which only equality with the container's counts.

    One that the container shared has the container's number, any other a number that the dump does not have, and so has
    every one that CRIU is told of as shared whether or not it was (restored_namespaces).
    """
    root, outside = dump.root.ids, dump.inventory.ids
    used = {number for task in dump.tasks for number in task.ids.namespaces}
    other = next(number for number in range(_NUMBER_MAX, 0, -1) if number not in used)
    told = ("pid_ns", "net_ns", "mnt_ns", *(("ipc_ns",) if dump.ipc else ()))
    numbers = dict.fromkeys(_KINDS.values(), other)
    numbers |= {field: getattr(root, field) for field in told if getattr(outside, field) == getattr(root, field)}
    return replace(outside, **numbers)


def restored_number(dump: Dump, kind: str) -> int:
    """The number that a restore has for the container's namespace of this kind (a field of TaskIds)."""
    return int(getattr(restored_namespaces(dump, dump.root), kind))


def restored_namespaces(dump: Dump, task: Task) -> TaskIds:
    """The ids that ``ids-<pid>.img`` of a living task must name for its namespaces; those that are no namespace stay.

    All tasks are in the root's, mount namespaces aside. Where the root's number is the dumping CRIU's, CRIU sets
    nothing up (pstree.c, get_clone_mask): the host name stays the pod's, and so do the limits of its IPC namespace
    where no object is made again. A time namespace is made for every tree, from timens-0.img (cr-restore.c,
    restore_task_with_children), a cgroup namespace never (cgroup.c, prepare_cgroup_namespace).
    """
    root, outside = dump.root.ids, outside_namespaces(dump)
    return replace(
        task.ids,
        pid_ns=root.pid_ns,
        net_ns=root.net_ns,
        ipc_ns=root.ipc_ns if dump.ipc else outside.ipc_ns,
        uts_ns=outside.uts_ns,
        user_ns=outside.user_ns,
        cgroup_ns=outside.cgroup_ns,
        time_ns=outside.time_ns,
    )
