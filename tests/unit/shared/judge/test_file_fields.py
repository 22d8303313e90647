"""Every field of open files has a rule; what ordinary containers have passes, and each bound refuses something."""

from __future__ import annotations

import stat
from typing import Any

import pytest
from google.protobuf.message import Message

from shared.criu import criu_pb2 as pb
from shared.errors import Refused
from shared.judge.files import FIELDS
from shared.judge.rules import Kind
from tests.support.checkpoints import completed
from tests.support.file_rules import RULES


@pytest.mark.parametrize("message", FIELDS)
def test_every_field_has_a_rule(message: str) -> None:
    assert set(FIELDS[message]) == set(getattr(pb, message).DESCRIPTOR.fields_by_name)


OWNER = pb.FownEntry(uid=0, euid=0, signum=10, pid_type=1, pid=1)
REGULAR = pb.RegFileEntry(
    id=7, flags=0o102002, pos=40, name=b"/tmp/a", mnt_id=147, size=40, mode=0o100644, build_id=[1, 2]
)
DESCRIPTOR = pb.FdinfoEntry(id=7, flags=1, type=1, fd=3)
EVENTS = pb.EventpollFileEntry(
    id=7, flags=2, tfd=[pb.EventpollTfdEntry(id=0, tfd=4, events=0x80000019, data=1 << 40, dev=15, inode=9, pos=0)]
)
TIMER = pb.TimerfdEntry(id=7, flags=2, clockid=1, settime_flags=1, vsec=999, vnsec=5, isec=100)
MEMORY = pb.MemfdInodeEntry(name=b"app", size=5000, shmid=77, seals=6, inode_id=1, mode=0o100777)
DATA = pb.PipeDataEntry(pipe_id=3, handle_bytes=10, size=65536)
WATCH = pb.InotifyWdEntry(
    i_ino=1, mask=0xFFF, s_dev=57, wd=2, f_handle=pb.FhEntry(handle_bytes=12, type=1, handle=[7], path=b"/data")
)
WATCHER = pb.InotifyFileEntry(id=7, flags=0o4000, wd=[WATCH])
MARK = pb.FanotifyMarkEntry(type=2, mask=1, me=pb.FanotifyMountMarkEntry(mnt_id=147))
MARKS = pb.FanotifyFileEntry(id=7, flags=2, faflags=4, evflags=0o100000, mark=[MARK])
REMAP = pb.RemapFilePathEntry(orig_id=7, remap_id=1, remap_type=1)
DELETED = pb.GhostFileEntry(uid=0, gid=0, mode=0o100600, dev=46, ino=36, chunks=True, size=1 << 20)
LOCK = pb.FileLockEntry(flag=1, type=1, pid=1, fd=3, start=5, len=10)
TERMINAL = pb.TtyInfoEntry(
    id=1, type=1, sid=1, pgrp=1, rdev=1282, pty=pb.TtyPtyEntry(index=0), dev=103, uid=0, gid=0,
    termios=pb.TermiosEntry(c_iflag=1280, c_ospeed=15, c_cc=[3] * 19), winsize=pb.WinsizeEntry(ws_row=24),
)  # fmt: skip

HONEST = [
    OWNER,
    REGULAR,
    pb.RegFileEntry(id=7, flags=0o20300000 | 0o2, name=b"/tmp/#38", mode=0o100600),  # O_TMPFILE
    pb.RegFileEntry(id=7, flags=0o10600000, name=b"/tmp/l", mode=0o120777),  # O_PATH | O_NOFOLLOW
    pb.RegFileEntry(id=7, flags=0o1150000 | 0o4010002, name=b"/tmp/l", mode=0o100644, pos=(1 << 64) - 1),
    pb.FileEntry(type=1, id=7, reg=REGULAR),
    DESCRIPTOR,
    EVENTS,
    pb.EventfdFileEntry(id=7, flags=0o4002, counter=(1 << 64) - 2),
    pb.SignalfdEntry(id=7, flags=2, sigmask=512),
    TIMER,
    pb.MemfdFileEntry(id=7, flags=0o100002, pos=5000, inode_id=1),
    MEMORY,
    pb.MemfdInodeEntry(name=b"", size=1 << 21, shmid=77, seals=1, inode_id=1, hugetlb_flag=4 | 21 << 26),
    pb.PipeEntry(id=7, pipe_id=9, flags=0o4001),
    pb.FifoEntry(id=7, pipe_id=9, regf_id=8),
    DATA,
    WATCHER,
    MARKS,
    REMAP,
    DELETED,
    pb.GhostChunkEntry(len=4096, off=0),
    LOCK,
    pb.FileLockEntry(flag=8, type=5, pid=1, fd=3, start=0, len=0),
    pb.TtyFileEntry(id=7, tty_info_id=1, flags=0o100002, regf_id=8),
    TERMINAL,
    pb.TtyDataEntry(tty_id=1, data=b"typed\n"),
]


@pytest.mark.parametrize("message", HONEST, ids=lambda each: each.DESCRIPTOR.name)
def test_what_ordinary_containers_have_passes(message: Message) -> None:
    RULES.apply(completed(message), "files.img")


def changed(honest: Message, **fields: Any) -> Message:
    entry = type(honest)()
    entry.CopyFrom(honest)
    for name, value in fields.items():
        if isinstance(value, Message):
            getattr(entry, name).CopyFrom(value)
        elif isinstance(value, dict):
            getattr(entry, name).MergeFrom(type(getattr(entry, name))(**value))
        else:
            setattr(entry, name, value)
    return completed(entry)


BEYOND: list[tuple[Message, dict[str, Any], str]] = [
    (OWNER, {"uid": (1 << 32) - 1}, "uid"),  # setresuid(2): leave it as it is, which is root's
    (OWNER, {"euid": (1 << 32) - 1}, "euid"),
    (OWNER, {"signum": 65}, "signum"),
    (OWNER, {"pid_type": 3}, "pid_type"),
    *((REGULAR, {"flags": flag}, "flags") for flag in (0o100, 0o200, 0o400, 0o1000, 1 << 5, 1 << 26, 1 << 31)),
    (REGULAR, {"ext": True}, "ext"),
    (REGULAR, {"mode": stat.S_IFSOCK | 0o777}, "mode"),
    (REGULAR, {"mode": 1 << 20 | 0o100644}, "mode"),
    (pb.FileEntry(id=7), {"type": 0}, "type"),
    (pb.FileEntry(id=7), {"type": 21}, "type"),
    (pb.FileEntry(id=7, type=16), {"ext": pb.ExtFileEntry(id=7)}, "ext"),
    (pb.FileEntry(id=7, type=19), {"bpf": pb.BpfmapFileEntry(id=7)}, "bpf"),
    (DESCRIPTOR, {"flags": 2}, "flags"),
    (DESCRIPTOR, {"fd": 1 << 20}, "fd"),
    (DESCRIPTOR, {"xattr_security_selinux": b"system_u:object_r:etc_t"}, "xattr_security_selinux"),
    (EVENTS, {"flags": 0o1000}, "flags"),
    (pb.EventfdFileEntry(id=7), {"flags": 0o100}, "flags"),
    (pb.SignalfdEntry(id=7), {"flags": 0o1000}, "flags"),
    (TIMER, {"flags": 0o1000}, "flags"),
    (TIMER, {"clockid": 2}, "clockid"),
    (TIMER, {"settime_flags": 4}, "settime_flags"),
    (pb.MemfdFileEntry(id=7), {"flags": 0o1000}, "flags"),
    (MEMORY, {"name": b"x" * 250}, "name"),
    (MEMORY, {"name": b"a\0b"}, "name"),
    (MEMORY, {"size": 1 << 47}, "size"),
    (MEMORY, {"seals": 0x40}, "seals"),
    (MEMORY, {"hugetlb_flag": 1}, "hugetlb_flag"),
    (MEMORY, {"mode": 0o104755}, "mode"),
    (MEMORY, {"mode": 0o20666}, "mode"),
    (pb.PipeEntry(id=7), {"flags": 0o1000}, "flags"),
    (DATA, {"size": (1 << 31) + 1}, "size"),
    (WATCH, {"wd": 0}, "wd"),
    (WATCH, {"wd": 1 << 31}, "wd"),
    (WATCHER, {"flags": 0o2000}, "flags"),
    (MARK, {"type": 3}, "type"),
    (MARK, {"me": {"path": b"/etc"}}, "path"),
    (MARKS, {"flags": 0o1000}, "flags"),
    (MARKS, {"evflags": 0o100}, "evflags"),
    (pb.IrmapCacheEntry(), {"path": b"/etc"}, "path"),
    (REMAP, {"remap_type": 0}, "remap_type"),
    (REMAP, {"remap_type": 3}, "remap_type"),
    (DELETED, {"mode": stat.S_IFSOCK | 0o777}, "mode"),
    (DELETED, {"mode": stat.S_IFLNK | 0o777}, "mode"),
    (DELETED, {"symlnk_target": b"/proc/self/fd/1000"}, "symlnk_target"),
    (LOCK, {"flag": 3}, "flag"),
    (LOCK, {"flag": 16}, "flag"),
    (pb.TtyFileEntry(id=7), {"flags": 0o1000}, "flags"),
    (TERMINAL, {"pty": {"index": 1001}}, "index"),
    (pb.TtyDataEntry(tty_id=1), {"data": bytes((64 << 10) + 1)}, "data"),
]


@pytest.mark.parametrize(
    ("honest", "fields", "named"), BEYOND, ids=lambda each: each if isinstance(each, str) else None
)
def test_what_no_ordinary_container_has_is_refused(honest: Message, fields: dict[str, Any], named: str) -> None:
    with pytest.raises(Refused, match=rf"\.{named}: ") as refusal:
        RULES.apply(changed(honest, **fields), "files.img")
    assert refusal.value.reason == "FieldExceeds"


def test_every_bound_of_a_value_refuses_something() -> None:
    forged = {(honest.DESCRIPTOR.name, named) for honest, _, named in BEYOND}
    parts = {("FanotifyMountMarkEntry", "path"), ("TtyPtyEntry", "index")}
    for message, rules in FIELDS.items():
        for name, rule in rules.items():
            if rule.kind is Kind.BOUNDED and rule.allowed is not None:
                assert (message, name) in forged | parts, f"nothing is forged in {message}.{name}"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (REGULAR, "checksum"),
        (TERMINAL, "dev"),
        (TERMINAL, "exclusive"),
        (WATCH.f_handle, "handle"),
        (WATCH, "ignored_mask"),
        (EVENTS.tfd[0], "inode"),
    ],
)
def test_what_criu_does_not_need_is_not_written(message: Message, field: str) -> None:
    entry = completed(message)
    if field == "checksum":
        entry = changed(message, checksum=5)
    RULES.apply(entry, "files.img")
    assert not getattr(entry, field)
