"""Signals that would end the stop in which CRIU leaves restored processes, before all is put right in them.

restore-runc lowers limits and covers paths while they are stopped. SIGCONT wakes a process whether it blocks the signal
or not; SIGKILL ends one, and where that leaves a group of stopped processes without a parent in their session, the
kernel sends them SIGHUP and SIGCONT (kernel/exit.c, kill_orphaned_pgrp).
"""

from __future__ import annotations

from typing import Final

SIGKILL: Final = 9
SIGCONT: Final = frozenset({18, 25})
"""asm-generic/signal.h, and arch/mips: there 18 is SIGCHLD; elsewhere 25 is SIGXFSZ."""
WHY: Final = "it neither wakes nor kills what CRIU leaves stopped until the pod's limits hold"


def wakes(signal: int) -> bool:
    return signal in SIGCONT or signal == SIGKILL
