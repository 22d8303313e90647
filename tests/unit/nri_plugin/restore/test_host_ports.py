"""A port that somebody else has on the node is not bound by CRIU as root."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from nri_plugin.restore.host_ports import check_host_ports
from shared.errors import Refused
from shared.judge.host_ports import HostPort

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def line(address: str, port: int, state: str, uid: int) -> str:
    return (
        f"   0: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  {uid}        0 1 1\n"
    )


@pytest.fixture
def net(tmp_path: Path) -> Path:
    zeros = "0" * 32
    (tmp_path / "tcp").write_text(HEADER + line("00000000", 8080, "0A", 0) + line("0100007F", 9090, "01", 0))
    (tmp_path / "tcp6").write_text(HEADER + line(zeros, 8443, "0A", 101))
    (tmp_path / "udp").write_text(HEADER + line("00000000", 5353, "07", 0))
    return tmp_path


@pytest.mark.parametrize(("protocol", "number"), [("tcp", 8080), ("tcp", 8443), ("udp", 5353)])
def test_port_of_somebody_else(protocol: str, number: int, net: Path) -> None:
    with pytest.raises(Refused, match=f"{protocol.upper()} port {number} bound") as failure:
        check_host_ports([HostPort(protocol, number, frozenset({1000}))], net)
    assert failure.value.reason == "SocketExceeds"


@pytest.mark.parametrize(
    "port",
    [
        HostPort("tcp", 8080, frozenset({0, 1000})),
        HostPort("tcp", 8443, frozenset({101})),
        HostPort("tcp", 9090, frozenset({1000})),  # a connection's own
        HostPort("tcp", 5353, frozenset({1000})),
        HostPort("udp", 8080, frozenset({1000})),
    ],
)
def test_port_that_is_free_or_its_own(port: HostPort, net: Path) -> None:
    check_host_ports([port], net)


def test_no_ports_read_nothing(tmp_path: Path) -> None:
    check_host_ports([], tmp_path / "nothing")


def test_a_real_listening_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.getsockname()[1]
        check_host_ports([HostPort("tcp", number, frozenset({os.getuid()}))])
        with pytest.raises(Refused):
            check_host_ports([HostPort("tcp", number, frozenset({os.getuid() + 1}))])
