"""Sockets against what the live container may bind, listen to and set.

Sources: ip(7), socket(7), netlink(7), packet(7), linux net/netlink/af_netlink.c (netlink_bind, netlink_connect,
NL_CFG_F_NONROOT_…), criu/sk-inet.c, criu/sk-netlink.c, criu/sockets.c (restore_socket_opts: SO_SNDBUFFORCE).
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Final

from shared.criu.dump import Dump
from shared.criu.open_files import InternetSocket, NetlinkSocket, OpenFile
from shared.errors import Refused
from shared.judge.socket_places import socket_place_refusals
from shared.spec import RuntimeSpec

SOCK_RAW: Final = 3
_PRIORITY_MAX: Final = 6
BUFFER_BYTES_MAX: Final = 64 << 20
"""More than the kernel gives a socket by itself (net.ipv4.tcp_rmem, tcp_wmem); beyond net.core.rmem_max and wmem_max a
process without CAP_NET_ADMIN cannot go."""
LISTENED_BY_ALL: Final = frozenset({0, 4, 15, 16})
"""NETLINK_ROUTE, SOCK_DIAG, KOBJECT_UEVENT and GENERIC: whose groups anybody may listen to."""
SENT_TO_BY_ALL: Final = frozenset({2})
"""NETLINK_USERSOCK."""
_WITHOUT_PORTS: Final = frozenset({1, 58})
"""IPPROTO_ICMP and ICMPV6 (linux/in.h): what a port is in the dump, is the identifier of an echo request."""
_PORT_SYSCTL: Final = "net.ipv4.ip_unprivileged_port_start"
_PORTS_KEPT: Final = 1024


def socket_refusals(dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """FileExceeds for raw sockets, SocketExceeds for ports and options that take a capability."""
    rights = live.capabilities.bounding
    yield from socket_place_refusals(dump, live)
    for file in dump.files:
        yield from _netlink(file, rights)
        yield from _options(file, rights)
        if not isinstance(file, InternetSocket):
            continue
        if file.type == SOCK_RAW and "CAP_NET_RAW" not in rights:
            yield Refused(
                "FileExceeds",
                "the checkpoint has a raw socket open, which takes CAP_NET_RAW and the pod does not grant it; add it "
                "to the container's capabilities if that is meant",
            )
        # A connection that a listening socket took has that one's port.
        low = _has_port(file) and 0 < file.source_port < _first_free_port(live)
        if low and "CAP_NET_BIND_SERVICE" not in rights:
            yield Refused(
                "SocketExceeds",
                f"the checkpoint has port {file.source_port} bound, which takes CAP_NET_BIND_SERVICE and the pod does "
                "not grant it; add it to the container's capabilities, or set the sysctl "
                f"{_PORT_SYSCTL}, if that is meant",
            )


def _has_port(file: InternetSocket) -> bool:
    """The number of a raw or ICMP socket is a protocol's, or one of the kernel's choice."""
    return file.type != SOCK_RAW and file.protocol not in _WITHOUT_PORTS


def _netlink(file: OpenFile, rights: Set[str]) -> Iterator[Refused]:
    if not isinstance(file, NetlinkSocket) or "CAP_NET_ADMIN" in rights:
        return
    if file.listens and file.protocol not in LISTENED_BY_ALL:
        yield _administers(f"listens to groups of the netlink protocol {file.protocol}")
    if file.sends and file.protocol not in SENT_TO_BY_ALL:
        yield _administers(f"sends to others by the netlink protocol {file.protocol}")


def _options(file: OpenFile, rights: Set[str]) -> Iterator[Refused]:
    if file.options is None or "CAP_NET_ADMIN" in rights:
        return
    if file.options.mark or file.options.priority > _PRIORITY_MAX:
        yield _administers("has a mark or a priority")
    if file.options.buffer_bytes > BUFFER_BYTES_MAX:
        yield _administers(f"has a buffer of {file.options.buffer_bytes} bytes")


def _administers(what: str) -> Refused:
    return Refused(
        "SocketExceeds",
        f"the checkpoint has a socket that {what}, which takes CAP_NET_ADMIN and the pod does not grant it; add it to "
        "the container's capabilities if that is meant",
    )


def _first_free_port(live: RuntimeSpec) -> int:
    """containerd sets the sysctl to 0 in pods' networks where configured (enable_unprivileged_ports), as 2.x does."""
    value = live.sysctl.get(_PORT_SYSCTL, "")
    return int(value) if value.isdecimal() else _PORTS_KEPT
