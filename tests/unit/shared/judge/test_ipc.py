"""System V objects: whose they may be, and what CRIU is told of them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message

from shared.criu import criu_pb2 as pb
from shared.criu.dump import read_dump
from shared.criu.images import ImageDirectory, Kind
from shared.errors import CheckpointInvalid, Refused
from shared.judge import PodIdentity, ipc
from shared.judge.ipc import ipc_refusals
from shared.judge.namespaces import outside_namespaces, restored_namespaces
from shared.judge.rules import Rules
from tests.support.checkpoints import SyntheticDump
from tests.support.pods import InMemory, Security, read, spec, synthetic_dump

NOBODY = Security(uid=1000, gid=1000, groups=(2000,), drop=("ALL",))
RULES = Rules(ipc.FIELDS)


def mixed(kind: Kind, *parts: Message | bytes) -> bytes:
    """An image of messages with raw content between them."""
    content = kind.header
    for part in parts:
        serialized = part if isinstance(part, bytes) else part.SerializeToString()
        content += serialized if isinstance(part, bytes) else struct.pack("<I", len(serialized)) + serialized
    return content


def owner(number: int = 1, uid: int = 0, gid: int = 0, **fields: Any) -> pb.IpcDescEntry:
    values = {"key": number + 100, "cuid": 7, "cgid": 7, "mode": 0o600} | fields
    return pb.IpcDescEntry(id=number, uid=uid, gid=gid, **values)


def dumped(security: Security = Security(), **who: Any) -> SyntheticDump:  # noqa: B008
    """A container with one object of each kind."""
    made = synthetic_dump(security)
    made.images["ipcns-shm-11.img"] = [pb.IpcShmEntry(desc=owner(1, **who), size=4096, in_pagemaps=True)]
    queue = pb.IpcMsgEntry(desc=owner(2, **who), qbytes=16_384, qnum=2)
    texts = (pb.IpcMsg(mtype=1, msize=3), b"abc" + bytes(5), pb.IpcMsg(mtype=2, msize=8), b"12345678")
    made.raw["ipcns-msg-11.img"] = mixed(Kind.IPC_MSG, queue, *texts)
    semaphores = pb.IpcSemEntry(desc=owner(3, **who), nsems=3)
    made.raw["ipcns-sem-11.img"] = mixed(Kind.IPC_SEM, semaphores, struct.pack("<4H", 1, 2, 3, 0))
    return made


def files(made: SyntheticDump) -> dict[str, bytes]:
    images = ImageDirectory(InMemory(made.files()), "checkpoint")
    dump = read_dump(images.files)
    assert list(ipc.relations(images, dump)) == []
    found = {each.name: each.pieces[0] for each in ipc.image_files(images, dump, RULES)}
    assert all(isinstance(content, bytes) for content in found.values())
    return found  # type: ignore[return-value]


def test_objects_are_read_with_their_content() -> None:
    found = read(dumped()).ipc
    assert [each.entry.size for each in found.memory] == [4096]
    ((queue,), (semaphores,)) = found.queues, found.semaphores
    assert [(message.mtype, text) for message, text in queue.messages] == [(1, b"abc" + bytes(5)), (2, b"12345678")]
    assert semaphores.values == struct.pack("<4H", 1, 2, 3, 0)


def test_objects_are_written_without_what_criu_does_not_read() -> None:
    made = dumped()
    found = files(made)
    assert set(found) == {"ipcns-var-11.img", "ipcns-shm-11.img", "ipcns-msg-11.img", "ipcns-sem-11.img"}
    plain = {"cuid": 0, "cgid": 0}
    queue = pb.IpcMsgEntry(desc=owner(2, **plain), qbytes=0, qnum=2)
    texts = (pb.IpcMsg(mtype=1, msize=3), b"abc" + bytes(5), pb.IpcMsg(mtype=2, msize=8), b"12345678")
    assert found["ipcns-msg-11.img"] == mixed(Kind.IPC_MSG, queue, *texts)
    semaphores = pb.IpcSemEntry(desc=owner(3, **plain), nsems=3)
    assert found["ipcns-sem-11.img"] == mixed(Kind.IPC_SEM, semaphores, struct.pack("<4H", 1, 2, 3, 0))


def test_limits_are_linux_own_whatever_the_checkpoint_says() -> None:
    made = dumped()
    honest = files(made)["ipcns-var-11.img"]
    limits: Any = made.images["ipcns-var-11.img"][0]
    limits.shm_rmid_forced, limits.msg_ctlmax, limits.shm_next_id = 1, 5, 9
    assert files(made)["ipcns-var-11.img"] == honest


def test_without_objects_criu_is_not_told_of_the_namespace() -> None:
    plain = read(synthetic_dump(Security()))
    assert files(synthetic_dump(Security())) == {}
    assert restored_namespaces(plain, plain.root).ipc_ns == outside_namespaces(plain).ipc_ns
    full = read(dumped())
    assert restored_namespaces(full, full.root).ipc_ns == 11


@pytest.mark.parametrize(
    ("who", "security", "named"),
    [
        ({"uid": 70}, NOBODY, "user 70"),
        ({"uid": 0}, NOBODY, "user 0"),
        ({"uid": 1000, "gid": 70}, NOBODY, "group 70"),
        ({"uid": 70}, Security(drop=("CAP_SETUID",)), "user 70"),
        ({"gid": 70}, Security(drop=("CAP_SETGID",)), "group 70"),
    ],
)
def test_object_of_another_user_is_refused(who: dict[str, int], security: Security, named: str) -> None:
    found = list(ipc_refusals(read(dumped(security, **who)), spec(security), PodIdentity()))
    assert [each.reason for each in found] == ["IdentityExceeds"] * 3
    assert all(named in each.sentence for each in found)


@pytest.mark.parametrize(
    ("who", "security"),
    [({"uid": 70, "gid": 70}, Security()), ({"uid": 1000, "gid": 1000}, NOBODY), ({"uid": 1000, "gid": 2000}, NOBODY)],
)
def test_object_that_the_pod_could_have_made_is_not_refused(who: dict[str, int], security: Security) -> None:
    assert list(ipc_refusals(read(dumped(security, **who)), spec(security), PodIdentity())) == []


def test_group_that_the_image_says_counts_where_the_pod_says_none() -> None:
    security = Security(uid=1000, drop=("ALL",))
    dump = read(dumped(security, uid=1000, gid=70))
    assert list(ipc_refusals(dump, spec(security), PodIdentity(group_fixed=False), 70)) == []
    assert list(ipc_refusals(dump, spec(security), PodIdentity(group_fixed=True), 70)) != []


def memory(**fields: Any) -> Callable[[SyntheticDump], None]:
    def change(made: SyntheticDump) -> None:
        values = {"desc": owner(), "size": 4096, "in_pagemaps": True} | fields
        made.images["ipcns-shm-11.img"] = [pb.IpcShmEntry(**values)]

    return change


def content(kind: Kind, *parts: Message | bytes) -> Callable[[SyntheticDump], None]:
    def change(made: SyntheticDump) -> None:
        made.raw[kind.file(11)] = mixed(kind, *parts)

    return change


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (memory(size=0), "IpcShmEntry.size"),
        (memory(size=1 << 47), "IpcShmEntry.size"),
        (memory(hugetlb_flag=1 << 26), "IpcShmEntry.hugetlb_flag"),
        (memory(desc=owner(mode=0o4600)), "IpcDescEntry.mode"),
        (memory(desc=owner(1 << 31, key=1)), "IpcDescEntry.id"),
        (content(Kind.IPC_SEM, pb.IpcSemEntry(desc=owner(), nsems=0)), "IpcSemEntry.nsems"),
        (content(Kind.IPC_SEM, pb.IpcSemEntry(desc=owner(), nsems=32_001), bytes(64_008)), "IpcSemEntry.nsems"),
        (
            content(
                Kind.IPC_MSG, pb.IpcMsgEntry(desc=owner(), qbytes=1, qnum=1), pb.IpcMsg(mtype=0, msize=1), bytes(8)
            ),
            "IpcMsg.mtype",
        ),
        (
            content(
                Kind.IPC_MSG,
                pb.IpcMsgEntry(desc=owner(), qbytes=1, qnum=1),
                pb.IpcMsg(mtype=1, msize=8193),
                bytes(8200),
            ),
            "IpcMsg.msize",
        ),
    ],
)
def test_object_that_no_process_could_make_is_refused(change: Callable[[SyntheticDump], None], field: str) -> None:
    made = synthetic_dump(Security())
    change(made)
    with pytest.raises(Refused, match=field):
        files(made)


QUEUE = pb.IpcMsgEntry(desc=owner(), qbytes=1, qnum=1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (content(Kind.IPC_SEM, pb.IpcSemEntry(desc=owner(), nsems=5), bytes(8)), "in the middle of an object"),
        (content(Kind.IPC_MSG, QUEUE), "in the middle of a length"),
        (content(Kind.IPC_MSG, QUEUE, pb.IpcMsg(mtype=1, msize=9), bytes(8)), "in the middle of an object"),
        (content(Kind.IPC_MSG, b"\xff\xff\xff\x7f"), "in the middle of a message"),
        (lambda made: made.raw.update({"ipcns-sem-11.img": b"x" * 8}), "does not start with the magic number"),
        (memory(in_pagemaps=False), "as CRIU before 3.0 wrote it"),
        (
            lambda made: made.images.update({
                "ipcns-shm-11.img": [
                    pb.IpcShmEntry(desc=owner(each, key=0), size=1, in_pagemaps=True) for each in (4, 4)
                ]
            }),
            "two objects with one number or key",
        ),
        (
            lambda made: made.images.update({
                "ipcns-shm-11.img": [
                    pb.IpcShmEntry(desc=owner(each, key=9), size=1, in_pagemaps=True) for each in (4, 5)
                ]
            }),
            "two objects with one number or key",
        ),
    ],
)  # fmt: skip
def test_damaged_image_is_refused(change: Callable[[SyntheticDump], None], sentence: str) -> None:
    made = synthetic_dump(Security())
    change(made)
    with pytest.raises(CheckpointInvalid, match=sentence):
        files(made)
