"""Which namespaces the restored tree would be in against those the live container gets.

CRIU makes a new namespace of a kind only where the dump had its own one; otherwise the tree stays in the namespace
that CRIU itself runs in, which is the node's (criu/namespaces.c, root_ns_mask).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from shared.criu.dump import Dump
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
}
"""Type in the runtime spec, field of TaskIds."""
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


def check_namespaces(dump: Dump, live: RuntimeSpec, *, shared: Callable[[Namespace], bool] = is_the_nodes) -> None:
    """Raises Refused: NamespacesDiffer when the tree would join the node's, NestedNamespaces."""
    root, outside = dump.root.ids, dump.inventory.ids
    for namespace in live.namespaces:
        field = _KINDS.get(namespace.type)
        if field is None or shared(namespace):
            continue
        inner, outer = getattr(root, field), getattr(outside, field)
        if inner and inner == outer:
            sharing = _SHARING.get(namespace.type)
            raise Refused(
                "NamespacesDiffer",
                f"the pod gives the container a {namespace.type} namespace of its own, the checkpoint would restore "
                f"into the node's; {f'set {sharing}: true, or ' if sharing else ''}take the checkpoint from a "
                "container of such a pod",
            )
    if dump.user_namespace and not any(namespace.type == "user" for namespace in live.namespaces):
        raise Refused(
            "NamespacesDiffer",
            "the checkpointed container had a user namespace of its own, the pod's has none; set hostUsers: false",
        )
    if dump.nested_namespaces and "CAP_SYS_ADMIN" not in live.capabilities.bounding:
        raise Refused(
            "NestedNamespaces",
            "some process of the checkpoint is in namespaces of its own inside the container, which takes "
            "CAP_SYS_ADMIN and the pod does not grant it; add it to the container's capabilities if that is meant",
        )
