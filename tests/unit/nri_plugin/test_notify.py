"""What the daemon tells a service manager: a datagram socket stands in for systemd's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nri_plugin.notify import Notifier

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(20)
        yield listening


def notified(manager: socket.socket, wanted: str) -> str:
    """The next message that has the assignment ``wanted``."""
    while wanted not in (said := manager.recv(4096).decode()).split("\n"):
        continue
    return said


def test_message_reaches_the_socket_the_environment_names(manager: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname()}
    notifier = Notifier(environ)
    notifier.send("READY=1", "STATUS=up")
    assert manager.recv(4096) == b"READY=1\nSTATUS=up"
    assert environ == {}


def test_status_is_one_line(manager: socket.socket) -> None:
    Notifier({"NOTIFY_SOCKET": manager.getsockname()}).status("two\nREADY=1")
    assert manager.recv(4096) == b"STATUS=two READY=1"


def test_abstract_socket_is_spelt_with_an_at_sign() -> None:
    name = f"nri-restore-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(5)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).send("READY=1")
        assert listening.recv(4096) == b"READY=1"


def test_reload_carries_the_time_it_began(manager: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    Notifier({"NOTIFY_SOCKET": manager.getsockname()}).reloading()
    first, second = manager.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize("address", ["", "/nowhere/notify"])
def test_nobody_listening_costs_nothing(address: str) -> None:
    Notifier({"NOTIFY_SOCKET": address}).send("READY=1")


@pytest.mark.parametrize(
    ("environ", "limit_s"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_is_on_where_it_is_meant_for_this_process(environ: dict[str, str], limit_s: float | None) -> None:
    assert Notifier(environ).watchdog_s == limit_s


@pytest.fixture
def daemon(manager: socket.socket, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A whole daemon where no runtime is, under the stand-in's watchdog."""
    config = tmp_path / "config.toml"
    config.write_text(
        f"[nri]\nsocket = '{tmp_path}/nri.sock'\n[paths]\nplans = '{tmp_path}/plans'\nstate = '{tmp_path}/state'\n"
    )
    environment = {**os.environ, "NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "300000"}
    with subprocess.Popen(
        [sys.executable, "-m", "nri_plugin.process", "session", str(config), "1.2"], cwd=ROOT, env=environment
    ) as process:
        yield process
        process.kill()


def test_daemon_is_ready_without_a_runtime_says_so_beats_reloads_and_stops(
    manager: socket.socket, daemon: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    notified(manager, "READY=1")
    said = manager.recv(4096).decode()
    while not said.startswith("STATUS="):
        said = manager.recv(4096).decode()
    assert said.startswith("STATUS=not connected to the runtime: no runtime listens on ")
    for _ in range(3):
        notified(manager, "WATCHDOG=1")
    (worker,) = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    assert "NOTIFY_SOCKET" not in Path(f"/proc/{worker}/environ").read_text()
    daemon.send_signal(signal.SIGHUP)
    assert "MONOTONIC_USEC=" in notified(manager, "RELOADING=1")
    notified(manager, "READY=1")
    daemon.send_signal(signal.SIGTERM)
    notified(manager, "STOPPING=1")
    assert daemon.wait(60) == 0
