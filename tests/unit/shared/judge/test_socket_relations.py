"""Sockets that do not fit one another, the processes or their queues are refused before CRIU reads them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from shared.criu import criu_pb2 as pb
from shared.criu.dump import read_dump
from shared.criu.images import ImageDirectory, Kind, join
from shared.errors import CheckpointInvalid, Refused
from shared.judge.socket_relations import relations
from tests.support.checkpoints import SyntheticDump, completed
from tests.support.pods import InMemory

Change = Callable[[SyntheticDump], None]
NETWORK = 10
PATH = b"/run/app.sock\0"


def unix(number: int, *, held: bool = True, **fields: Any) -> Change:
    values = {"id": number, "ino": number, "type": 1, "state": 7, "ns_id": NETWORK} | fields
    return _opened(pb.FileEntry(type=5, id=number, usk=pb.UnixSkEntry(**values)), held)


def internet(number: int, *, held: bool = True, **fields: Any) -> Change:
    values: dict[str, Any] = {
        "id": number,
        "ino": number,
        "family": 2,
        "type": 1,
        "proto": 6,
        "state": 10,
        "src_port": 8080,
        "src_addr": [0x0200000A],
        "dst_addr": [0],
        "ns_id": NETWORK,
    }
    return _opened(pb.FileEntry(type=4, id=number, isk=pb.InetSkEntry(**values | fields)), held)


def connection(number: int, **fields: Any) -> Change:
    return internet(number, **{"state": 1, "dst_port": 443, "dst_addr": [0x0100000A]} | fields)


def netlink(number: int, **fields: Any) -> Change:
    values = {"id": number, "ino": number, "protocol": 0, "ns_id": NETWORK} | fields
    return _opened(pb.FileEntry(type=13, id=number, nlsk=pb.NetlinkSkEntry(**values)), True)


def packet_socket(number: int, **fields: Any) -> Change:
    return _opened(pb.FileEntry(type=10, id=number, psk=pb.PacketSockEntry(id=number, type=3, **fields)), True)


def eventfd(number: int) -> Change:
    return _opened(pb.FileEntry(type=6, id=number, efd=pb.EventfdFileEntry(id=number)), False)


def regular(number: int, *, held: bool) -> Change:
    reg = pb.RegFileEntry(id=number, name=b"/etc/secret", mnt_id=147, mode=0o100600)
    return _opened(pb.FileEntry(type=1, id=number, reg=reg), held)


def _opened(entry: pb.FileEntry, held: bool) -> Change:
    def change(dump: SyntheticDump) -> None:
        if held:
            dump.add_file(entry, descriptor=entry.id)
        else:
            dump.images["files.img"].append(entry)

    return change


def queue(*packets: tuple[int, bytes, Sequence[Sequence[int]]]) -> Change:
    """Receiver, bytes, and lists of files in flight of each."""

    def change(dump: SyntheticDump) -> None:
        content = Kind.SK_QUEUES.header
        for receiver, sent, lists in packets:
            scm = [pb.ScmEntry(type=1, rights=each) for each in lists]
            entry = pb.SkPacketEntry(id_for=receiver, length=len(sent), scm=scm).SerializeToString()
            content += struct.pack("<I", len(entry)) + entry + sent
        dump.raw["sk-queues.img"] = content

    return change


def stream(number: int, queued: bytes, **fields: Any) -> Change:
    def change(dump: SyntheticDump) -> None:
        entry = completed(pb.TcpStreamEntry(**{"mss_clamp": 1460, "unsq_len": 0} | fields))
        dump.raw[f"tcp-stream-{number:x}.img"] = join(Kind.TCP_STREAM, [entry]) + queued

    return change


def found(*changes: Change, processes: int = 1) -> list[Refused]:
    made = SyntheticDump.of_processes(processes)
    for change in changes:
        change(made)
    files = InMemory(made.files())
    return list(relations(ImageDirectory(files, "checkpoint"), read_dump(files)))


PAIR = (unix(50, state=1, peer=51), unix(51, state=1, peer=50))
DATAGRAMS = {"type": 2, "state": 1}

HONEST: dict[str, tuple[Change, ...]] = {
    "none": (),
    "a pair": PAIR,
    "a pair of datagram sockets": (unix(50, peer=51, **DATAGRAMS), unix(51, peer=50, **DATAGRAMS)),
    "one end of a closed connection": (unix(50, state=1, shutdown=3),),
    "listening at a path": (unix(50, state=10, name=PATH, mnt_id=147, file_perms={"mode": 0o140755}),),
    "listening at a relative path": (unix(50, state=10, name=b"s\0", name_dir=b"/run", mnt_id=147),),
    "listening at an abstract name": (unix(50, state=10, name=b"\0a"),),
    "connections that wait": (
        unix(50, state=10, name=PATH, backlog=1),
        *(unix(number, state=1, peer=50) for number in (51, 52)),
    ),
    "a datagram socket connected to another": (unix(50, type=2, name=PATH), unix(51, peer=50, **DATAGRAMS)),
    "a datagram socket connected to itself": (unix(50, peer=50, name=PATH, **DATAGRAMS),),
    "accepted sockets of one name": (
        unix(50, state=10, name=PATH),
        unix(51, state=1, peer=52, name=PATH),
        unix(52, state=1, peer=51),
    ),
    "no number of a network": (unix(50, ns_id=0),),
    "data on the way": (*PAIR, queue((50, b"abc", []), (51, b"", []))),
    "a file on the way that a process holds": (*PAIR, regular(60, held=True), queue((50, b"x", [[60]]))),
    "an event counter on the way": (*PAIR, eventfd(60), queue((50, b"x", [[60]]))),
    "a socket on the way in another": (
        *PAIR,
        unix(52, held=False, state=1, shutdown=3),
        eventfd(60),
        queue((50, b"x", [[52]]), (52, b"y", [[60]])),
    ),
    "listening for TCP": (internet(50),),
    "a closed TCP socket": (internet(50, state=7),),
    "a TCP connection": (connection(50), stream(50, b"abcdef", inq_len=2, outq_len=4, unsq_len=4)),
    "a TCP connection whose image was left out": (connection(50),),
    "UDP": (internet(50, type=2, proto=17, state=1, dst_port=53),),
    "UDP over IPv6": (internet(50, family=10, type=2, proto=17, state=7, src_addr=[0] * 4, dst_addr=[0] * 4),),
    "ping": (internet(50, type=2, proto=1, state=7),),
    "raw": (internet(50, type=3, proto=89, state=7, src_port=89),),
    "netlink": (netlink(50, groups=[1]),),
    "packets": (packet_socket(50, ns_id=NETWORK),),
}


@pytest.mark.parametrize("changes", HONEST.values(), ids=HONEST)
def test_honest(changes: tuple[Change, ...]) -> None:
    assert [refused.sentence for refused in found(*changes)] == []


FORGED: dict[str, tuple[str, tuple[Change, ...]]] = {
    "netlink socket of another number": ("NetlinkSkEntry.id", (netlink(50, id=51),)),
    "packet socket of another number": (
        "PacketSockEntry.id",
        (_opened(pb.FileEntry(type=10, id=50, psk=pb.PacketSockEntry(id=51, type=3)), True),),
    ),
    "inode of none": ("UnixSkEntry.ino", (unix(50, ino=0),)),
    "inode twice": ("UnixSkEntry.ino", (unix(50, ino=5), unix(51, ino=5))),
    "other end is missing": ("UnixSkEntry.peer", (unix(50, state=1, peer=51),)),
    "other end of another type": ("UnixSkEntry.peer", (unix(50, state=1, peer=51), unix(51, type=2, peer=50))),
    "other end cannot be connected to": ("UnixSkEntry.peer", (*PAIR, unix(52, state=1, peer=50))),
    "other end has no name": ("UnixSkEntry.peer", (unix(50, state=10), unix(51, state=1, peer=50))),
    "other end is connected and has a path": (
        "UnixSkEntry.peer",
        (unix(50, state=1, name=PATH, shutdown=3), unix(51, state=1, peer=50)),
    ),
    "listening and connected": ("UnixSkEntry.peer", (unix(50, state=10, peer=51, name=PATH), unix(51, peer=50))),
    "more connections than wait": (
        "UnixSkEntry.backlog",
        (unix(50, state=10, name=PATH), unix(51, state=1, peer=50), unix(52, state=1, peer=50)),
    ),
    "relative path without a folder": ("UnixSkEntry.name_dir", (unix(50, state=10, name=b"s\0"),)),
    "folder for an absolute path": ("UnixSkEntry.name_dir", (unix(50, state=10, name=PATH, name_dir=b"/"),)),
    "folder for an abstract name": ("UnixSkEntry.name_dir", (unix(50, state=10, name=b"\0a", name_dir=b"/"),)),
    "abstract name deleted": ("UnixSkEntry.deleted", (unix(50, name=b"\0a", deleted=True),)),
    "no name, but a mount": ("UnixSkEntry.mnt_id", (unix(50, mnt_id=147),)),
    "abstract name with an owner": ("UnixSkEntry.file_perms", (unix(50, name=b"\0a", file_perms={"mode": 0}),)),
    "Unix socket that nobody has": ("UnixSkEntry.id", (unix(50, held=False),)),
    "internet socket that nobody has": ("InetSkEntry.id", (internet(50, held=False),)),
    "Unix socket in another network": ("UnixSkEntry.ns_id", (unix(50, ns_id=2),)),
    "internet socket in another network": ("InetSkEntry.ns_id", (internet(50, ns_id=2),)),
    "netlink socket in another network": ("NetlinkSkEntry.ns_id", (netlink(50, ns_id=2),)),
    "packet socket in another network": ("PacketSockEntry.ns_id", (packet_socket(50, ns_id=2),)),
    "address of the other family": ("InetSkEntry.src_addr", (internet(50, family=10),)),
    "stream of UDP": ("InetSkEntry.proto", (internet(50, proto=17, state=7),)),
    "stream of SCTP": ("InetSkEntry.proto", (internet(50, proto=132, state=7),)),
    "listening for UDP": ("InetSkEntry.state", (internet(50, type=2, proto=17),)),
    "raw TCP with another port": ("InetSkEntry.dst_port", (internet(50, type=3, state=7, dst_port=1),)),
    "closed TCP with another port": ("InetSkEntry.state", (internet(50, state=7, dst_port=1),)),
    "listening TCP with another port": ("InetSkEntry.state", (internet(50, dst_port=1),)),
    "connected TCP without another port": ("InetSkEntry.state", (internet(50, state=1, dst_addr=[1]),)),
    "connection from nowhere": ("InetSkEntry.src_addr", (connection(50, src_addr=[0]),)),
    "connection from a group": ("InetSkEntry.src_addr", (connection(50, src_addr=[0x010000E0]),)),
    "connection to all": ("InetSkEntry.dst_addr", (connection(50, dst_addr=[0xFFFFFFFF]),)),
    "two connections of one image": ("InetSkEntry.ino", (connection(50, ino=5), connection(51, ino=5))),
    "more unsent than to send": ("TcpStreamEntry.unsq_len", (connection(50), stream(50, b"", unsq_len=1))),
    "two words of groups": ("NetlinkSkEntry.groups", (netlink(50, groups=[1, 1]),)),
    "packet for no socket": ("SkPacketEntry.id_for", (queue((3, b"x", [])),)),
    "packet for one that listens": (
        "SkPacketEntry.id_for",
        (unix(50, state=10, name=PATH), queue((50, b"x", []))),
    ),
    "two lists of files": ("SkPacketEntry.scm", (*PAIR, queue((50, b"x", [[1], [2]])))),
    "too many files": ("ScmEntry.rights", (*PAIR, queue((50, b"x", [[2] * 254])))),
    "missing file": ("ScmEntry.rights", (*PAIR, queue((50, b"x", [[99]])))),
    "two files of one number": (
        "ScmEntry.rights",
        (*PAIR, eventfd(60), regular(60, held=True), queue((50, b"x", [[60]]))),
    ),
    "file by its path in flight alone": (
        "file 60 (reg) on its way",
        (*PAIR, regular(60, held=False), queue((50, b"x", [[60]]))),
    ),
    "socket by its path in flight alone": (
        "file 60 (unixsk) on its way",
        (*PAIR, unix(60, held=False, state=10, name=PATH), queue((50, b"x", [[60]]))),
    ),
    "sockets that are in each other's queues alone": (
        "UnixSkEntry.id",
        (
            unix(50, held=False, state=1, peer=51),
            unix(51, held=False, state=1, peer=50),
            queue((50, b"x", [[51]]), (51, b"x", [[50]])),
        ),
    ),
    "path that is no UTF-8": ("no UTF-8", (unix(50, state=10, name=b"/run/\xff\0"),)),
}


@pytest.mark.parametrize(("named", "changes"), FORGED.values(), ids=FORGED)
def test_forged(named: str, changes: tuple[Change, ...]) -> None:
    refused = found(*changes)
    assert [named in each.sentence for each in refused].count(True) >= 1, [each.sentence for each in refused]


@pytest.mark.parametrize("queued", [b"abc", b"abcde"])
def test_queues_of_a_connection_are_as_long_as_it_says(queued: bytes) -> None:
    with pytest.raises(CheckpointInvalid, match="instead of 2 received and 2 to send"):
        found(connection(50), stream(50, queued, inq_len=2, outq_len=2))
