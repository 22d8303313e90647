"""Ports that a hostNetwork pod would share with programs of the node.

CRIU binds every internet socket as root with SO_REUSEADDR and SO_REUSEPORT (criu/sk-inet.c, open_inet_sk). The kernel
lets sockets of one user alone share a port by the latter (socket(7)), so bound by root it could be shared with a
program of the node's root, and get a part of what is sent there. A pod's own process could not.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from shared.criu.dump import Dump
from shared.criu.open_files import InternetSocket
from shared.judge.file_rights import users_of, within_reach
from shared.judge.namespaces import is_the_nodes
from shared.spec import Namespace, RuntimeSpec

_LISTENS = 10


@dataclass(frozen=True, slots=True)
class HostPort:
    protocol: str
    """``tcp`` or ``udp``."""
    number: int
    users: frozenset[int]
    """Uids of the pod: a socket of theirs may have the port already."""


def host_ports(
    dump: Dump, live: RuntimeSpec, *, shared: Callable[[Namespace], bool] = is_the_nodes
) -> tuple[HostPort, ...]:
    """None where the pod has a network of its own, or processes that could have been root.

    UDP sockets that any user may share (SO_REUSEADDR) are left out.
    """
    network = next((each for each in live.namespaces if each.type == "network"), None)
    if network is not None and not shared(network):
        return ()
    users = frozenset(user.uid for user in users_of(dump, live))
    if 0 in users or within_reach("CAP_SETUID", live):
        return ()
    found: dict[HostPort, None] = {}
    for file in dump.files:
        if isinstance(file, InternetSocket) and file.source_port and (protocol := _protocol(file)):
            found[HostPort(protocol, file.source_port, users)] = None
    return tuple(found)


def _protocol(file: InternetSocket) -> str | None:
    if file.type == socket.SOCK_STREAM and file.state == _LISTENS:
        return "tcp"
    shareable = file.options is not None and file.options.reuse_address
    return "udp" if file.protocol == socket.IPPROTO_UDP and not shareable else None
