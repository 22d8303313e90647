"""Rules for the fields of sockets' entries.

CRIU makes every socket as root with all capabilities, in the container's network namespace, before it takes the dumped
users (criu/sk-*.c, criu/sockets.c). So a field is free only where the kernel asks nobody for a right: what takes a
capability is compared with the live pod's (shared/judge/sockets.py, unix_sockets.py), and what names another object
must name one of the dump (shared/judge/socket_relations.py). Sources: socket(7), ip(7), ipv6(7), tcp(7), unix(7),
netlink(7), packet(7); linux net/core/sock.c, net/ipv4/tcp.c, net/netlink/af_netlink.c, net/unix/af_unix.c.
"""

from __future__ import annotations

import socket
import stat
from collections.abc import Callable
from typing import Final

from shared.judge.rules import Fields, Rule, bounded, default, derived, free

UNIX_NAME_BYTES_MAX: Final = 108
"""UNIX_PATH_MAX (linux/un.h); CRIU refuses longer ones (criu/sk-unix.c, init_unix_sk_info)."""
PACKET_BYTES_MAX: Final = 64 << 20
"""A packet was in one socket's buffer (shared/judge/sockets.py, BUFFER_BYTES_MAX)."""
RIGHTS_MAX: Final = 253
"""SCM_MAX_FD (linux net/scm.h)."""
_INTERFACE_BYTES: Final = 15
"""IFNAMSIZ with the final zero (linux/if.h)."""
_U32: Final = (1 << 32) - 1
_INT_MAX: Final = (1 << 31) - 1
_WINDOW_SCALE_MAX: Final = 14
"""TCP_MAX_WSCALE (linux net/tcp.h)."""
_STREAM_OPTIONS: Final = 0xFF
"""TCPI_OPT_… (linux/tcp.h); CRIU acts on timestamps, SACK and window scaling (soccr/soccr.c)."""

_OWN: Final = "it has rules of its own"
_UNASKED: Final = "any process may set it on its own socket"
_UNREAD: Final = "CRIU does not read it when it restores"
_CHECKED: Final = "the kernel refuses what is no such value, and asks for no right"
_FLAGS_WHY: Final = "fcntl(2) sets these on a socket, and open(2) those that every socket has"


def _within(low: int, high: int) -> Callable[[int], bool]:
    return lambda value: low <= value <= high


def _only(*values: int) -> Callable[[int], bool]:
    return frozenset(values).__contains__


OPEN_FLAGS: Final = 0o2 | 0o2000 | 0o4000 | 0o20000 | 0o2000000
"""O_RDWR, O_APPEND, O_NONBLOCK, O_ASYNC, O_CLOEXEC (linux asm-generic/fcntl.h)."""


def socket_flags(value: int) -> bool:
    """Whether a socket may have been open so."""
    return not value & ~OPEN_FLAGS


def is_unix_name(name: bytes) -> bool:
    """Whether the kernel tells a name so: empty, behind a zero byte (abstract), or a path that one zero byte ends.

    CRIU reads a path up to its zero byte to remove what is there, and by its length to bind (criu/sk-unix.c, unlink_sk,
    bind_unix_sk): without the one it would read on in its own memory, with more of them the two would differ.
    """
    if len(name) > UNIX_NAME_BYTES_MAX:
        return False
    return not name or name[0] == 0 or name.find(0) == len(name) - 1


def _interface(name: bytes) -> bool:
    return 0 < len(name) <= _INTERFACE_BYTES and not any(byte in name for byte in b"\0/ ")


def _socket_file(mode: int) -> bool:
    return stat.S_ISSOCK(mode) and not mode & (stat.S_ISUID | stat.S_ISGID) and mode <= 0o177777


_ID: Final = bounded("it is the file's own number, which descriptors refer to")
_INODE: Final = bounded("it names this socket alone, within its kind")
_NAMESPACE: Final = bounded("CRIU makes the socket in that network namespace, which must be one of a process'")
_FLAGS: Final = bounded(_FLAGS_WHY, socket_flags)
_SHUTDOWN: Final = bounded("CRIU looks it up in a table of four (criu/include/sockets.h)", _within(0, 3))
_INTERFACE: Final = bounded("it is the name of an interface in the container's own network", _interface)


def _unasked(*names: str) -> dict[str, Rule]:
    return {name: free(_UNASKED) for name in names}


FIELDS: Final[Fields] = {
    "SkOptsEntry": {
        "so_sndbuf": bounded("a size above net.core.wmem_max takes CAP_NET_ADMIN", _within(0, _INT_MAX)),
        "so_rcvbuf": bounded("a size above net.core.rmem_max takes CAP_NET_ADMIN", _within(0, _INT_MAX)),
        "so_priority": bounded("a class above 6 takes CAP_NET_ADMIN"),
        "so_mark": bounded("a mark takes CAP_NET_ADMIN"),
        "so_bound_dev": _INTERFACE,
        "so_filter": free("any process may filter its own socket; the kernel checks the program (net/core/filter.c)"),
        "so_buf_lock": bounded("the kernel has two such bits (SOCK_BUF_LOCK_MASK)", _within(0, 3)),
        **_unasked(
            "so_snd_tmo_sec",
            "so_snd_tmo_usec",
            "so_rcv_tmo_sec",
            "so_rcv_tmo_usec",
            "reuseaddr",
            "so_rcvlowat",
            "so_passcred",
            "so_passsec",
            "so_dontroute",
            "so_no_check",
            "so_reuseport",
            "so_broadcast",
            "so_keepalive",
            "tcp_keepcnt",
            "tcp_keepidle",
            "tcp_keepintvl",
            "so_oobinline",
            "so_linger",
        ),
    },
    "InetSkEntry": {
        "id": _ID,
        "ino": _INODE,
        "family": bounded("CRIU restores IPv4 and IPv6", _only(socket.AF_INET, 10)),
        "type": bounded("a raw socket takes CAP_NET_RAW", _only(1, 2, 3)),
        "proto": bounded("CRIU dumps TCP, UDP, UDP-Lite, ICMP, and any protocol of a raw socket", _within(0, 255)),
        "state": bounded("the kernel's states of TCP; a connection needs the pod's consent", _within(1, 11)),
        "src_port": bounded("a port below the first free one takes CAP_NET_BIND_SERVICE", _within(0, 0xFFFF)),
        "dst_port": bounded("with TCP it makes a connection, which needs the pod's consent", _within(0, 0xFFFF)),
        "flags": _FLAGS,
        "backlog": free(_UNASKED),
        "src_addr": bounded("as many words as the family has; the kernel binds only to addresses of the container"),
        "dst_addr": bounded("as many words as the family has; any process may connect to it from the container"),
        "fown": free(_OWN),
        "opts": free(_OWN),
        "v6only": free(_UNASKED),
        "ip_opts": free(_OWN),
        "ifname": _INTERFACE,
        "ns_id": _NAMESPACE,
        "shutdown": _SHUTDOWN,
        "tcp_opts": free(_OWN),
    },
    "IpOptsEntry": {
        **_unasked("freebind", "pktinfo", "tos", "ttl"),
        "raw": free(_OWN),
    },
    "IpOptsRawEntry": {
        "hdrincl": free("only raw sockets have it, which take CAP_NET_RAW themselves"),
        "nodefrag": free("only raw sockets have it, which take CAP_NET_RAW themselves"),
        "checksum": derived(_UNREAD),
        "icmpv_filter": free("only raw sockets have it, and the kernel reads no more than there is"),
    },
    "TcpOptsEntry": _unasked("cork", "nodelay", "keepcnt", "keepidle", "keepintvl"),
    "TcpStreamEntry": {
        "inq_len": bounded("as many bytes follow the entry"),
        "outq_len": bounded("as many bytes follow the entry"),
        "unsq_len": bounded("the bytes not sent are among those to send, or CRIU would send of its own memory"),
        "opt_mask": bounded("the kernel's options of a connection", _within(0, _STREAM_OPTIONS)),
        "snd_wscale": bounded("RFC 7323, 2.3: at most 14", _within(0, _WINDOW_SCALE_MAX)),
        "rcv_wscale": bounded("RFC 7323, 2.3: at most 14", _within(0, _WINDOW_SCALE_MAX)),
        "mss_clamp": bounded("a segment has some bytes, and at most as many as a packet", _within(1, 0xFFFF)),
        **{
            name: free(
                "of a connection that this container had, in its own network, where the pod says that it may come "
                "back; the kernel refuses windows that do not fit the queues (tcp_repair_set_window)"
            )
            for name in (
                "inq_seq",
                "outq_seq",
                "timestamp",
                "snd_wl1",
                "snd_wnd",
                "max_window",
                "rcv_wnd",
                "rcv_wup",
            )
        },
        **_unasked("cork", "nodelay"),
    },
    "NetlinkSkEntry": {
        "id": _ID,
        "ino": derived(_UNREAD),
        "protocol": bounded("the kernel has 32 protocols (MAX_LINKS)", _within(0, 31)),
        "state": bounded(
            "none, connected, or closed as the kernel tells of others; a socket connected to the kernel is restored "
            "unconnected, for CRIU would connect it to a group that nobody chose",
            _only(0, 1, 7),
        ),
        "flags": _FLAGS,
        "portid": free("any process may bind to a free number, and CRIU takes another one for one that is not"),
        "groups": bounded("listening takes CAP_NET_ADMIN with some protocols, and CRIU restores 32 groups"),
        "dst_portid": bounded("sending to another process takes CAP_NET_ADMIN with most protocols"),
        "dst_group": bounded("sending to a group takes CAP_NET_ADMIN with most protocols", _within(0, 32)),
        "fown": free(_OWN),
        "opts": free(_OWN),
        "ns_id": _NAMESPACE,
    },
    "PacketSockEntry": {
        "id": _ID,
        "type": bounded("SOCK_DGRAM, SOCK_RAW and SOCK_PACKET; each takes CAP_NET_RAW", _only(2, 3, 10)),
        "protocol": bounded("a number of 16 bits", _within(0, 0xFFFF)),
        "flags": _FLAGS,
        "ifindex": free("of an interface in the container's own network"),
        "fown": free(_OWN),
        "opts": free(_OWN),
        "ns_id": _NAMESPACE,
        "mclist": free(_OWN),
        "rx_ring": free(_OWN),
        "tx_ring": free(_OWN),
        "fanout": free("who may have a packet socket may join the groups of that network"),
        **{
            name: free("who may have a packet socket may set it")
            for name in (
                "version",
                "reserve",
                "aux_data",
                "orig_dev",
                "vnet_hdr",
                "loss",
                "timestamp",
                "copy_thresh",
            )
        },
    },
    "PacketMclist": {
        "index": free("of an interface in the container's own network"),
        "type": free("who may have a packet socket may listen to all that passes"),
        "addr": bounded("the longest address of hardware (MAX_ADDR_LEN)", lambda addr: len(addr) <= 32),
    },
    "PacketRing": {
        name: free("who may have a packet socket may have a ring; " + _CHECKED)
        for name in (
            "block_size",
            "block_nr",
            "frame_size",
            "frame_nr",
            "retire_tmo",
            "sizeof_priv",
            "features",
        )
    },
    "UnixSkEntry": {
        "id": _ID,
        "ino": _INODE,
        "type": bounded("SOCK_STREAM, SOCK_DGRAM and SOCK_SEQPACKET", _only(1, 2, 5)),
        "state": bounded("connected, closed or listening", _only(1, 7, 10)),
        "flags": _FLAGS,
        "uflags": default("CRIU would take the socket from its caller, from a plugin, or leave it out", 0),
        "backlog": free(_UNASKED),
        "peer": bounded("the other end is of the same type, and one that CRIU can connect to"),
        "fown": free(_OWN),
        "opts": free(_OWN),
        "name": bounded("a name as the kernel tells it; a path ends with its only zero byte", is_unix_name),
        "shutdown": _SHUTDOWN,
        "file_perms": free(_OWN),
        "name_dir": bounded("an absolute directory, for a relative path alone"),
        "deleted": bounded("for a path alone; CRIU makes it for a moment, so the pod's users must be able to"),
        "ns_id": _NAMESPACE,
        "mnt_id": bounded("the innermost mount at the path"),
    },
    "FilePermsEntry": {
        "mode": bounded("a socket's, without set-user-ID or set-group-ID bits", _socket_file),
        "uid": bounded("on a volume, of a user of the container, unless it may give files away"),
        "gid": bounded("on a volume, of a group of the container, unless it may give files away"),
    },
    "SkPacketEntry": {
        "id_for": bounded("a Unix socket of the dump that some process holds"),
        "length": bounded("as many bytes follow the entry", _within(0, PACKET_BYTES_MAX)),
        "scm": bounded("at most one list of files (criu/sk-queue.c, collect_one_packet)"),
    },
    "ScmEntry": {
        "type": bounded("files in flight (SCM_RIGHTS)", _only(1)),
        "rights": bounded("a process holds the file, or it is one without a path; at most 253"),
    },
}
