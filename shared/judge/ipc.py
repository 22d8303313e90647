"""System V objects of the pod's IPC namespace, which CRIU makes again as root.

Where the checkpoint has none, the restored container is put into the pod's IPC namespace without CRIU knowing of it
(namespaces.py): then CRIU sets none of the namespace's limits either. Where it has some, CRIU sets the limits first;
they are Linux' own defaults here, and restore-runc puts the pod's back afterwards. A POSIX message queue never is in a
dump: CRIU dumps no mqueue file system that is not empty (filesystems.c, dump_empty_fs).

Sources: criu/ipc_ns.c (prepare_ipc_ns), linux ipc/{shm,msg,sem}.c, sysvipc(7).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from google.protobuf.message import Message

from shared.criu.criu_pb2 import IpcVarEntry
from shared.criu.decode import damaged
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind, join
from shared.errors import Refused
from shared.judge.pod_identity import PodIdentity
from shared.judge.rules import Fields, Rules, bounded, default, derived, free
from shared.judge.writing import ImageFile, image_file
from shared.spec import RuntimeSpec

INT_MAX: Final = (1 << 31) - 1
_ROOM: Final = (1 << 64) - 1 - (1 << 24)
_LIMITS: Final = IpcVarEntry(
    sem_ctls=(32_000, 1_024_000_000, 500, 32_000),
    msg_ctlmax=8192,
    msg_ctlmnb=16_384,
    msg_ctlmni=32_000,
    auto_msgmni=0,
    shm_ctlmax=_ROOM,
    shm_ctlall=_ROOM,
    shm_ctlmni=4096,
    shm_rmid_forced=0,
    mq_queues_max=256,
    mq_msg_max=10,
    mq_msgsize_max=8192,
    mq_msg_default=10,
    mq_msgsize_default=8192,
)
"""Linux' defaults for a new IPC namespace (linux/{sem,msg,shm,ipc_namespace}.h)."""
_LIMIT: Final = derived("the namespace keeps the pod's own limits; while objects are made they are Linux' defaults")

FIELDS: Final[Fields] = {
    "IpcDescEntry": {
        "key": free("any process may make an object with any key (sysvipc(7))"),
        "uid": bounded("a user that the pod's container may become (ipc_refusals)"),
        "gid": bounded("a group that the pod's container has or may take (ipc_refusals)"),
        "cuid": derived("the creator is CRIU, whatever the image says"),
        "cgid": derived("the creator is CRIU, whatever the image says"),
        "mode": bounded("permissions, and that it was to be removed or was locked", lambda mode: mode <= 0o3777),
        "id": bounded("one object has a number, which the kernel counts in an int", lambda number: number <= INT_MAX),
    },
    "IpcMsg": {
        "mtype": bounded("a positive long (msgop(2))", lambda kind: 0 < kind < 1 << 63),
        "msize": bounded("CRIU reads it into 8192 bytes (ipc_ns.c, MSGMAX)", lambda size: size <= 8192),
    },
    "IpcMsgEntry": {
        "desc": bounded("its own fields have rules"),
        "qbytes": derived("CRIU does not set it"),
        "qnum": bounded("as many messages follow in the image"),
    },
    "IpcSemEntry": {
        "desc": bounded("its own fields have rules"),
        "nsems": bounded("what Linux allows in a set (linux/sem.h, SEMMSL)", lambda count: 0 < count <= 32_000),
    },
    "IpcShmEntry": {
        "desc": bounded("its own fields have rules"),
        "size": bounded("what a process can attach", lambda size: 0 < size <= 1 << 46),
        "in_pagemaps": bounded("the content lies in a page map", bool),
        "hugetlb_flag": default("huge pages of the node, which take CAP_IPC_LOCK or a group of the node to ask for"),
    },
    "IpcVarEntry": dict.fromkeys(
        (
            "sem_ctls", "msg_ctlmax", "msg_ctlmnb", "msg_ctlmni", "auto_msgmni", "shm_ctlmax", "shm_ctlall",
            "shm_ctlmni", "shm_rmid_forced", "mq_queues_max", "mq_msg_max", "mq_msgsize_max", "mq_msg_default",
            "mq_msgsize_default", "msg_next_id", "sem_next_id", "shm_next_id",
        ),
        _LIMIT,
    ),
}  # fmt: skip


def relations(images: ImageDirectory, dump: Dump) -> Iterator[Refused]:
    """Raises CheckpointInvalid for two objects with one number or key, of which CRIU could make only one."""
    for kind, objects in (
        (Kind.IPC_SHM, dump.ipc.memory),
        (Kind.IPC_MSG, dump.ipc.queues),
        (Kind.IPC_SEM, dump.ipc.semaphores),
    ):
        numbers = [each.entry.desc.id for each in objects]
        keys = [each.entry.desc.key for each in objects if each.entry.desc.key]
        if len(set(numbers)) != len(numbers) or len(set(keys)) != len(keys):
            raise damaged(images.path(kind.file(dump.root.ids.ipc_ns)), "has two objects with one number or key")
    return iter(())


def ipc_refusals(
    dump: Dump, live: RuntimeSpec, identity: PodIdentity, dumped_gid: int | None = None
) -> Iterator[Refused]:
    """IdentityExceeds for an object of a user or group that the pod's processes could not have made one as.

    ``dumped_gid``: the group of the dumped container, which counts where the image and not the pod says it.
    """
    any_user = live.uid == 0 and "CAP_SETUID" in live.capabilities.bounding
    any_group = live.uid == 0 and "CAP_SETGID" in live.capabilities.bounding
    groups = {live.gid, *live.additional_gids}
    if dumped_gid is not None and not identity.group_fixed and live.gid == 0:
        groups.add(dumped_gid)
    for what, owner in dump.ipc.owners:
        if not any_user and owner.uid != live.uid:
            yield _others(what, owner.id, f"user {owner.uid}", f"runs as {live.uid}")
        elif not any_group and owner.gid not in groups:
            names = ", ".join(map(str, sorted(groups)))
            yield _others(what, owner.id, f"group {owner.gid}", f"belongs only to {names}")


def _others(what: str, number: int, owner: str, live: str) -> Refused:
    return Refused(
        "IdentityExceeds",
        f"the checkpoint has the System V {what} {number} of {owner}, the pod's container {live}; CRIU would make "
        "again what another container of the pod made, so take a new checkpoint when no other user has any",
    )


def image_files(images: ImageDirectory, dump: Dump, rules: Rules) -> Iterator[ImageFile]:
    """The images of the namespace's objects and of the limits they are made under; none without objects."""
    if not dump.ipc:
        return
    number = dump.root.ids.ipc_ns
    yield image_file(Kind.IPC_VAR, [_LIMITS], number)
    if dump.ipc.memory:
        entries = [each.entry for each in dump.ipc.memory]
        for entry in entries:
            rules.apply(entry, images.path(Kind.IPC_SHM.file(number)))
        yield image_file(Kind.IPC_SHM, entries, number)
    if dump.ipc.queues:
        parts: list[Message | bytes] = []
        for queue in dump.ipc.queues:
            parts.append(queue.entry)
            for message, text in queue.messages:
                parts += (message, text)
        yield _mixed(images, rules, Kind.IPC_MSG, parts, number)
    if dump.ipc.semaphores:
        parts = [part for each in dump.ipc.semaphores for part in (each.entry, each.values)]
        yield _mixed(images, rules, Kind.IPC_SEM, parts, number)


def _mixed(
    images: ImageDirectory, rules: Rules, kind: Kind, parts: Iterable[Message | bytes], number: int
) -> ImageFile:
    """An image of messages with raw content between them."""
    start = len(kind.header)
    pieces = [kind.header]
    for part in parts:
        if isinstance(part, bytes):
            pieces.append(part)
        else:
            rules.apply(part, images.path(kind.file(number)))
            pieces.append(join(kind, [part])[start:])
    return ImageFile(kind.file(number), (b"".join(pieces),))
