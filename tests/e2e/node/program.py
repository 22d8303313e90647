"""A long-running program inside a machine: end it, kill it, freeze it, read what it printed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from shared.errors import Unavailable
from tests.e2e.node.processes import children
from tests.e2e.node.waiting import LIMIT_S


class Program:
    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str], name: str) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._entered = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(env),
                start_new_session=True,
            )
        self.pid = self._wait_for_pid()
        """The program itself as the host numbers it (its parent is nsenter)."""

    def _wait_for_pid(self) -> int:
        deadline = time.monotonic() + LIMIT_S
        while self._entered.poll() is None:
            if found := children(self._entered.pid):
                return found[0]
            if time.monotonic() > deadline:
                raise Unavailable("ProgramDidNotStart", f"{self.name} did not start within {LIMIT_S:g} s")
            time.sleep(0.002)
        raise Unavailable("ProgramDidNotStart", f"{self.name} ended at once: {self.output()[-1000:]}")

    @property
    def running(self) -> bool:
        return self._entered.poll() is None

    def signal(self, number: signal.Signals) -> None:
        if self.running:
            with suppress(ProcessLookupError):  # it ends just now
                os.kill(self.pid, number)

    def wait(self, timeout_s: float) -> int:
        """Exit status, negative for a signal; raises Unavailable("ProgramDidNotEnd")."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                status = self._entered.wait(0.05)
                break
            except subprocess.TimeoutExpired as error:
                if time.monotonic() > deadline:
                    raise Unavailable("ProgramDidNotEnd", f"{self.name} did not end within {timeout_s:g} s") from error
                # It stops itself when its child has stopped (util-linux sys-utils/nsenter.c), some time after a pause.
                self._wake_nsenter()
        return status - 256 if status > 128 else status

    def stop(self, timeout_s: float = LIMIT_S) -> int:
        """SIGTERM, and SIGKILL when that does not end it within ``timeout_s`` seconds; returns the exit status."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout_s)
        except Unavailable:
            self.kill()
            raise

    def kill(self) -> int:
        """SIGKILL, also to a paused program; returns the exit status."""
        self.signal(signal.SIGKILL)
        return self.wait(LIMIT_S)

    def pause(self) -> None:
        """SIGSTOP: the program answers nothing until ``resume``."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)
        self._wake_nsenter()

    def _wake_nsenter(self) -> None:
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self._entered.pid, signal.SIGCONT)

    def output(self) -> str:
        """Everything in the log file, earlier runs of the program included."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def reap(self) -> None:
        """Collects the dead program after its machine went down."""
        self._entered.wait()
