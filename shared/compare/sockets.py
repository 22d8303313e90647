"""Internet sockets against what the live container may bind and set. Sources: ip(7), socket(7), criu/sk-inet.c."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.criu.dump import Dump
from shared.criu.open_files import InternetSocket
from shared.errors import Refused
from shared.spec import RuntimeSpec

SOCK_RAW: Final = 3
_PRIORITY_MAX: Final = 6
_PORT_SYSCTL: Final = "net.ipv4.ip_unprivileged_port_start"
_PORTS_KEPT: Final = 1024


def socket_refusals(dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """FileExceeds for raw sockets, SocketExceeds for ports and options that take a capability."""
    rights = live.capabilities.bounding
    for file in dump.files:
        if not isinstance(file, InternetSocket):
            continue
        if file.type == SOCK_RAW and "CAP_NET_RAW" not in rights:
            yield Refused(
                "FileExceeds",
                "the checkpoint has a raw socket open, which takes CAP_NET_RAW and the pod does not grant it; add it "
                "to the container's capabilities if that is meant",
            )
        # A connection that a listening socket took has that one's port.
        if 0 < file.source_port < _first_free_port(live) and "CAP_NET_BIND_SERVICE" not in rights:
            yield Refused(
                "SocketExceeds",
                f"the checkpoint has port {file.source_port} bound, which takes CAP_NET_BIND_SERVICE and the pod does "
                "not grant it; add it to the container's capabilities, or set the sysctl "
                f"{_PORT_SYSCTL}, if that is meant",
            )
        if (file.mark or file.priority > _PRIORITY_MAX) and "CAP_NET_ADMIN" not in rights:
            yield Refused(
                "SocketExceeds",
                "the checkpoint has a socket with a mark or a priority that takes CAP_NET_ADMIN and the pod does not "
                "grant it; add it to the container's capabilities if that is meant",
            )


def _first_free_port(live: RuntimeSpec) -> int:
    """containerd sets the sysctl to 0 in pods' networks where configured (enable_unprivileged_ports), as 2.x does."""
    value = live.sysctl.get(_PORT_SYSCTL, "")
    return int(value) if value.isdecimal() else _PORTS_KEPT
