"""Timers against what the live container may set.

Sources: timer_create(2), timerfd_create(2), criu/timerfd.c, criu/pie/restorer.c (create_posix_timers runs before
restore_creds).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.criu.dump import Dump
from shared.criu.open_files import TimerDescriptor
from shared.errors import Refused
from shared.spec import RuntimeSpec

ALARM_CLOCKS: Final = frozenset({8, 9})
"""CLOCK_REALTIME_ALARM and CLOCK_BOOTTIME_ALARM (linux/time.h), which wake the machine from sleep."""


def timer_refusals(dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """TimerExceeds."""
    if "CAP_WAKE_ALARM" in live.capabilities.bounding:
        return
    clocks = {clock for task in dump.tasks for clock in task.timer_clocks}
    clocks |= {file.clock for file in dump.files if isinstance(file, TimerDescriptor)}
    if clocks & ALARM_CLOCKS:
        yield Refused(
            "TimerExceeds",
            "the checkpoint has a timer that wakes the machine from sleep, which takes CAP_WAKE_ALARM and the pod does "
            "not grant it; add it to the container's capabilities if that is meant",
        )
