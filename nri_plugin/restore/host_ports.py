"""Looks whether somebody else has a port on the node that CRIU would bind there as root.

Source: proc_pid_net(5) (``local_address``, ``st``, ``uid``); the daemon's own network is the node's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from shared.errors import Refused
from shared.judge.host_ports import HostPort

_TABLES: Final = {"tcp": ("tcp", "tcp6"), "udp": ("udp", "udp6")}
_LISTENS: Final = "0A"
"""TCP_LISTEN (linux/tcp_states.h)."""


def check_host_ports(ports: Iterable[HostPort], net: Path = Path("/proc/self/net")) -> None:
    """Raises Refused("SocketExceeds") for a port that a user has whom the pod is not."""
    wanted = list(ports)
    if not wanted:
        return
    owners = {protocol: list(_owners(net, protocol)) for protocol in {port.protocol for port in wanted}}
    for port in wanted:
        if any(number == port.number and uid not in port.users for number, uid in owners[port.protocol]):
            raise Refused(
                "SocketExceeds",
                f"the checkpoint has {port.protocol.upper()} port {port.number} bound, which a program of another user "
                "has on this node, and the pod shares the node's network; stop that program, or restore on another "
                "node",
            )


def _owners(net: Path, protocol: str) -> Iterator[tuple[int, int]]:
    """Port and uid of each socket that is bound."""
    for table in _TABLES[protocol]:
        try:
            lines = (net / table).read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for line in lines:
            fields = line.split()
            if protocol == "udp" or fields[3] == _LISTENS:
                yield int(fields[1].rpartition(":")[2], 16), int(fields[7])
