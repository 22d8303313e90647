"""Every field of sockets, open namespaces and descriptors of processes has a rule, and each bound refuses something."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message

from shared.criu import criu_pb2 as pb
from shared.errors import Refused
from shared.judge import kernel_objects, socket_fields
from shared.judge.rules import Kind, Rules, free
from tests.support.checkpoints import completed

FIELDS = {**socket_fields.FIELDS, **kernel_objects.FIELDS}
RULES = Rules({**FIELDS, "FownEntry": {name: free("elsewhere") for name in pb.FownEntry.DESCRIPTOR.fields_by_name}})


@pytest.mark.parametrize("message", FIELDS)
def test_every_field_has_a_rule(message: str) -> None:
    assert set(FIELDS[message]) == set(getattr(pb, message).DESCRIPTOR.fields_by_name)


UNIX = pb.UnixSkEntry(
    id=7, ino=9, type=1, state=10, flags=0o4002, backlog=128, name=b"/run/app.sock\0", shutdown=0, mnt_id=147, ns_id=10
)
UNIX.file_perms.CopyFrom(pb.FilePermsEntry(mode=0o140755, uid=1000, gid=1000))
INTERNET = pb.InetSkEntry(id=7, ino=9, family=2, type=1, proto=6, state=10, src_port=8080, flags=2, shutdown=3)
OPTIONS = pb.SkOptsEntry(so_sndbuf=212992, so_rcvbuf=212992, so_priority=0, so_buf_lock=3, so_bound_dev=b"eth0")
STREAM = pb.TcpStreamEntry(inq_len=4, outq_len=4, opt_mask=7, snd_wscale=7, rcv_wscale=14, mss_clamp=1460, unsq_len=0)
PACKET = pb.PacketSockEntry(id=7, type=3, protocol=0x300, flags=2, ifindex=2, version=2)
NETLINK = pb.NetlinkSkEntry(id=7, ino=9, protocol=0, state=7, portid=4711, flags=0o2, groups=[1])

HONEST = [
    UNIX,
    pb.UnixSkEntry(id=7, ino=9, type=2, state=7, name=b"\0abstract\0with\0zeros"),
    pb.UnixSkEntry(id=7, ino=9, type=5, state=1, peer=8),
    pb.UnixSkEntry(id=7, ino=9, type=1, state=10, name=b"/" + b"x" * 106 + b"\0"),
    INTERNET,
    pb.InetSkEntry(id=7, ino=9, family=10, type=3, proto=58, state=7, ifname=b"eth0", ip_opts={"raw": {"hdrincl": 1}}),
    OPTIONS,
    STREAM,
    PACKET,
    NETLINK,
    pb.PacketMclist(index=1, type=1, addr=bytes(32)),
    pb.SkPacketEntry(id_for=7, length=5, scm=[pb.ScmEntry(type=1, rights=[3, 4])]),
    pb.NsFileEntry(id=7, ns_id=9, ns_cflag=0x20000000, flags=0o100000),
    pb.PidfdEntry(id=7, ino=9, flags=0o4000, nspid=1),
]


@pytest.mark.parametrize("message", HONEST, ids=lambda each: each.DESCRIPTOR.name)
def test_what_ordinary_containers_have_passes(message: Message) -> None:
    entry = completed(message)
    RULES.apply(entry, "files.img")


def changed(honest: Message, **fields: Any) -> Message:
    entry = type(honest)()
    entry.CopyFrom(honest)
    entry.MergeFrom(type(honest)(**fields))
    return completed(entry)


BEYOND: list[tuple[Message, dict[str, Any], str]] = [
    (UNIX, {"type": 3}, "type"),
    (UNIX, {"state": 2}, "state"),
    (UNIX, {"flags": 0o100}, "flags"),  # O_CREAT
    (UNIX, {"flags": 0o40000}, "flags"),  # O_DIRECT
    (UNIX, {"uflags": 1}, "uflags"),
    (UNIX, {"uflags": 8}, "uflags"),
    (UNIX, {"name": b"/run/no-zero"}, "name"),
    (UNIX, {"name": b"/run/a\0b\0"}, "name"),
    (UNIX, {"name": b"/run/a\0\0"}, "name"),
    (UNIX, {"name": b"/" + b"x" * 107 + b"\0"}, "name"),
    (UNIX, {"name": b"\0" + b"x" * 108}, "name"),
    (UNIX, {"shutdown": 4}, "shutdown"),
    (UNIX, {"file_perms": {"mode": 0o100644, "uid": 0, "gid": 0}}, "mode"),  # a regular file's
    (UNIX, {"file_perms": {"mode": 0o144755, "uid": 0, "gid": 0}}, "mode"),
    (INTERNET, {"family": 16}, "family"),
    (INTERNET, {"type": 5}, "type"),
    (INTERNET, {"proto": 262}, "proto"),
    (INTERNET, {"state": 0}, "state"),
    (INTERNET, {"state": 12}, "state"),
    (INTERNET, {"src_port": 65536}, "src_port"),
    (INTERNET, {"dst_port": 65536}, "dst_port"),
    (INTERNET, {"flags": 0o1000}, "flags"),
    (INTERNET, {"shutdown": 4}, "shutdown"),
    (INTERNET, {"ifname": b"eth0\0x"}, "ifname"),
    (INTERNET, {"opts": {"so_sndbuf": 1 << 31}}, "so_sndbuf"),
    (OPTIONS, {"so_rcvbuf": 1 << 31}, "so_rcvbuf"),
    (OPTIONS, {"so_buf_lock": 4}, "so_buf_lock"),
    (OPTIONS, {"so_bound_dev": b"x" * 16}, "so_bound_dev"),
    (STREAM, {"opt_mask": 0x100}, "opt_mask"),
    (STREAM, {"snd_wscale": 15}, "snd_wscale"),
    (STREAM, {"rcv_wscale": 15}, "rcv_wscale"),
    (STREAM, {"mss_clamp": 0}, "mss_clamp"),
    (STREAM, {"mss_clamp": 65536}, "mss_clamp"),
    (PACKET, {"type": 1}, "type"),
    (PACKET, {"protocol": 65536}, "protocol"),
    (PACKET, {"flags": 0o100}, "flags"),
    (NETLINK, {"protocol": 32}, "protocol"),
    (NETLINK, {"state": 2}, "state"),
    (NETLINK, {"flags": 0o100}, "flags"),
    (NETLINK, {"dst_group": 33}, "dst_group"),
    (pb.PacketMclist(), {"addr": bytes(33)}, "addr"),
    (pb.SkPacketEntry(), {"length": (64 << 20) + 1}, "length"),
    (pb.ScmEntry(), {"type": 2}, "type"),  # SCM_CREDENTIALS
    (pb.NsFileEntry(), {"flags": 0o1}, "flags"),
    (pb.PidfdEntry(), {"flags": 0o200}, "flags"),  # PIDFD_THREAD
    (pb.TunfileEntry(), {"id": 7}, "id"),
    (pb.TunfileEntry(), {"netdev": b"tun0"}, "netdev"),
    (pb.TunfileEntry(), {"detached": True}, "detached"),
    (pb.TunfileEntry(), {"ns_id": 1}, "ns_id"),
    (pb.TunLinkEntry(), {"owner": 1}, "owner"),
    (pb.TunLinkEntry(), {"flags": 1}, "flags"),
]


@pytest.mark.parametrize(("honest", "fields", "named"), BEYOND, ids=lambda each: str(each)[:40])
def test_beyond_its_bounds(honest: Message, fields: dict[str, Any], named: str) -> None:
    with pytest.raises(Refused, match=rf"\.{named}: ") as failure:
        RULES.apply(changed(honest, **fields), "files.img")
    assert failure.value.reason == "FieldExceeds"


def test_each_bound_by_value_has_a_failing_case() -> None:
    named = {(honest.DESCRIPTOR.name, name) for honest, _, name in BEYOND}
    bounds = {
        (message, name)
        for message, fields in FIELDS.items()
        for name, rule in fields.items()
        if rule.allowed is not None or (rule.kind is Kind.DEFAULT and message != "TunLinkEntry")
    }
    part_of = {("SkOptsEntry", "so_sndbuf"): "InetSkEntry", ("FilePermsEntry", "mode"): "UnixSkEntry"}
    assert {(part_of.get(each, each[0]), each[1]) for each in bounds} <= named


def test_what_criu_does_not_read_is_not_passed_on() -> None:
    entry = completed(NETLINK)
    RULES.apply(entry, "files.img")
    assert isinstance(entry, pb.NetlinkSkEntry)
    assert entry.ino == 0
    raw = pb.IpOptsRawEntry(checksum=True, hdrincl=True)
    RULES.apply(raw, "files.img")
    assert raw == pb.IpOptsRawEntry(hdrincl=True)
