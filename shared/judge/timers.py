"""Timers against what the live container may set.

Sources: timer_create(2), timerfd_create(2), criu/timer.c, criu/timerfd.c, criu/pie/restorer.c (create_posix_timers
runs before restore_creds), linux kernel/time/posix-timers.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.criu.criu_pb2 import CoreEntry
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind
from shared.criu.open_files import TimerDescriptor
from shared.errors import Refused
from shared.judge import waking
from shared.judge.rules import Fields, bounded, field_refused, free
from shared.spec import RuntimeSpec

TIMER_ID_MAX: Final = 10_000_000
"""Under Linux before 6.15 CRIU makes and deletes a timer for each lower number: a million of them take a second."""
_CLOCKS: Final = frozenset({0, 1, 2, 3, 7, 8, 9, 11})
"""linux/time.h: REALTIME, MONOTONIC, PROCESS_CPUTIME_ID, THREAD_CPUTIME_ID, BOOTTIME, the alarms, TAI."""
_CPU_CLOCK: Final = 1 << 31
_CLOCK_OF_FILE: Final = 3
"""linux/posix-timers_types.h, CPUCLOCK_CLOCK_MASK: a clock that a descriptor gives, which would be one of CRIU's."""
_NOTIFY: Final = frozenset({0, 1, 2, 4})
"""linux/siginfo.h: SIGEV_SIGNAL, _NONE, _THREAD, _THREAD_ID."""
_TIME: Final = "a process sets its timers as it likes; CRIU ends on times that are none"


def _is_clock(clock: int) -> bool:
    if clock & _CPU_CLOCK:
        return clock & 3 != _CLOCK_OF_FILE
    return clock in _CLOCKS


FIELDS: Final[Fields] = {
    "TaskTimersEntry": {
        "real": free(_TIME),
        "virt": free(_TIME),
        "prof": free(_TIME),
        "posix": bounded("each has a number of its own"),
    },
    "ItimerEntry": {name: free(_TIME) for name in ("isec", "iusec", "vsec", "vusec")},
    "PosixTimerEntry": {
        "it_id": bounded(
            "CRIU counts up to it, so it is no more than ten million", lambda number: number <= TIMER_ID_MAX
        ),
        "clock_id": bounded("it is a clock of the kernel; those that wake the machine take CAP_WAKE_ALARM", _is_clock),
        "si_signo": bounded(f"the timer signals its own process; {waking.WHY}", lambda it: not waking.wakes(it)),
        "it_sigev_notify": bounded("it is a way of notifying that Linux has", lambda way: way in _NOTIFY),
        "sival_ptr": free("the process gets it back with its signal"),
        "overrun": free("CRIU does not restore it"),
        **{name: free(_TIME) for name in ("isec", "insec", "vsec", "vnsec")},
        "notify_thread_id": free("the kernel takes a thread of the same process only"),
    },
}


def relations(images: ImageDirectory, dump: Dump) -> Iterator[Refused]:
    """FieldExceeds for two timers of one number: CRIU counts on for the second one, past all that there are."""
    for task in dump.tasks:
        if not task.alive or not task.timer_clocks:
            continue
        seen: set[int] = set()
        for timer in images.one(Kind.CORE, CoreEntry, task.pid).tc.timers.posix:
            if timer.it_id in seen:
                image = images.path(Kind.CORE.file(task.pid))
                yield field_refused(image, timer, "it_id", timer.it_id, "another timer of the process has it too")
            seen.add(timer.it_id)


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
