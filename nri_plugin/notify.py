"""What the service manager is told and asks for: sd_notify(3), one datagram a message; nothing where there is none."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress


class Notifier:
    """Speaks to the service manager that the environment names; its variables are taken out, children have their own.

    ``watchdog_s`` is how long it waits between two WATCHDOG=1 before it ends the service (sd_watchdog_enabled(3)), None
    when it does not.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self.address = environ.pop("NOTIFY_SOCKET", "")
        limit, meant = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        ours = limit.isdecimal() and meant in {"", str(os.getpid())}
        self.watchdog_s = int(limit) / 1e6 if ours and int(limit) else None

    def send(self, *lines: str) -> None:
        """Sends assignments such as ``READY=1``; never waits, and what cannot be sent is not."""
        if not self.address:
            return
        # A leading @ is systemd's spelling of the abstract namespace's null byte.
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as channel:
            channel.sendto("\n".join(lines).encode(), address)

    def status(self, text: str) -> None:
        """The line ``systemctl status`` shows."""
        self.send("STATUS=" + text.replace("\n", " "))

    def reloading(self) -> None:
        """Says that a reload begins; READY=1 says that it is done."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
