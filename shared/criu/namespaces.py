"""What a dump says of the namespaces that the container shared with its pod: UTS, IPC, network, at times PID.

Sources: images/{utsns,ipc-var,netdev,pidns}.proto, criu/uts_ns.c, criu/ipc_ns.c (ipc_sysctl_req), criu/net.c,
criu/pstree.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shared.criu.criu_pb2 import IpcVarEntry, NetnsEntry, PidnsEntry, UtsnsEntry
from shared.criu.decode import damaged
from shared.criu.images import ImageDirectory, Kind, text
from shared.criu.task_ids import TaskIds

_SYSCTLS: Final = {
    "msg_ctlmax": "kernel.msgmax",
    "msg_ctlmnb": "kernel.msgmnb",
    "msg_ctlmni": "kernel.msgmni",
    "auto_msgmni": "kernel.auto_msgmni",
    "shm_ctlmax": "kernel.shmmax",
    "shm_ctlall": "kernel.shmall",
    "shm_ctlmni": "kernel.shmmni",
    "shm_rmid_forced": "kernel.shm_rmid_forced",
    "mq_queues_max": "fs.mqueue.queues_max",
    "mq_msg_max": "fs.mqueue.msg_max",
    "mq_msgsize_max": "fs.mqueue.msgsize_max",
    "mq_msg_default": "fs.mqueue.msg_default",
    "mq_msgsize_default": "fs.mqueue.msgsize_default",
}


@dataclass(frozen=True, slots=True)
class PodNamespaces:
    hostname: str | None
    """None: the dump has no UTS namespace of its own, so the restore sets none."""
    domainname: str | None
    ipc_sysctls: Mapping[str, str]
    """As sysctl(8) names them, e.g. ``kernel.shmmax``; none when the dump has no IPC namespace of its own."""
    network_key: str | None
    """Set when the network namespace is handed in at restore, as runc does for a pod's."""
    process_key: str | None = None
    """Set when the PID namespace is handed in at restore, as runc does for one that the pod's containers share."""


def read_namespaces(images: ImageDirectory, root: TaskIds, dumper: TaskIds) -> PodNamespaces:
    """``root``: ids of the container's first process; ``dumper``: of the CRIU that dumped it.

    Raises CheckpointInvalid: FileMissing, WrongMagic, ImageDamaged.
    """
    hostname = domainname = None
    if root.uts_ns != dumper.uts_ns:
        name = images.path(Kind.UTSNS.file(root.uts_ns))
        uts = images.one(Kind.UTSNS, UtsnsEntry, root.uts_ns)
        hostname, domainname = text(uts.nodename, name), text(uts.domainname, name)
    sysctls = _ipc_sysctls(images, root.ipc_ns) if root.ipc_ns != dumper.ipc_ns else {}
    return PodNamespaces(
        hostname, domainname, sysctls, _network_key(images, root.net_ns), _process_key(images, root.pid_ns)
    )


def _ipc_sysctls(images: ImageDirectory, namespace: int) -> Mapping[str, str]:
    entry = images.one(Kind.IPC_VAR, IpcVarEntry, namespace)
    if len(entry.sem_ctls) not in (0, 4):
        raise damaged(images.path(Kind.IPC_VAR.file(namespace)), "has a number of semaphore limits that is not four")
    found = {"kernel.sem": " ".join(map(str, entry.sem_ctls))} if entry.sem_ctls else {}
    return found | {sysctl: str(getattr(entry, field)) for field, sysctl in _SYSCTLS.items() if entry.HasField(field)}


def _network_key(images: ImageDirectory, namespace: int) -> str | None:
    if Kind.NETNS.file(namespace) not in images:
        return None
    entry = images.one(Kind.NETNS, NetnsEntry, namespace)
    return text(entry.ext_key, images.path(Kind.NETNS.file(namespace))) or None


def _process_key(images: ImageDirectory, namespace: int) -> str | None:
    if Kind.PIDNS.file(namespace) not in images:
        return None
    entry = images.one(Kind.PIDNS, PidnsEntry, namespace)
    return text(entry.ext_key, images.path(Kind.PIDNS.file(namespace))) or None
