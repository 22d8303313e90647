"""Files that are only events: eventfd, epoll, signalfd and timerfd.

CRIU makes each anew by the system call of that name, in the process that has it (criu/eventfd.c, eventpoll.c,
signalfd.c, timerfd.c), so nothing but rights that CRIU has beyond the container's matters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from shared.criu.decode import damaged
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind
from shared.errors import Refused
from shared.judge.open_flags import flags_rule, id_rule, owner_rule
from shared.judge.regular_files import EPOLL, held, of_kind
from shared.judge.rules import Fields, bounded, derived, free
from shared.spec import RuntimeSpec

EPOLLWAKEUP: Final = 1 << 29
_CLOCKS: Final = frozenset({0, 1, 7, 8, 9})
"""Those of timerfd_create(2): the real, monotonic and boot time, and alarms of the first and the last."""
_TIMER_FLAGS: Final = 1 | 2
"""TFD_TIMER_ABSTIME and TFD_TIMER_CANCEL_ON_SET."""
_OWN: Final = free("the process may set that itself")

FIELDS: Final[Fields] = {
    "EventfdFileEntry": {
        "id": id_rule(),
        "flags": flags_rule("CRIU sets O_NONBLOCK and its like"),
        "fown": owner_rule(),
        "counter": _OWN,
    },
    "EventpollFileEntry": {
        "id": id_rule(),
        "flags": flags_rule("CRIU sets O_NONBLOCK and its like"),
        "fown": owner_rule(),
        "tfd": bounded("EventpollTfdEntry has rules of its own"),
    },
    "EventpollTfdEntry": {
        "id": derived("only an image of its own, which is not written, needs it"),
        "tfd": bounded("a descriptor of a process that has the epoll file"),
        "events": bounded("EPOLLWAKEUP takes CAP_BLOCK_SUSPEND"),
        "data": free("epoll_wait(2) gives it back"),
        "dev": derived("it only helps to find the descriptor when a dump is taken"),
        "inode": derived("it only helps to find the descriptor when a dump is taken"),
        "pos": derived("it only helps to find the descriptor when a dump is taken"),
    },
    "SignalfdEntry": {
        "id": id_rule(),
        "flags": flags_rule("CRIU sets O_NONBLOCK and its like"),
        "fown": owner_rule(),
        "sigmask": _OWN,
    },
    "TimerfdEntry": {
        "id": id_rule(),
        "flags": flags_rule("CRIU sets O_NONBLOCK and its like"),
        "fown": owner_rule(),
        "clockid": bounded("an alarm takes CAP_WAKE_ALARM", lambda clock: clock in _CLOCKS),
        "ticks": _OWN,
        "settime_flags": bounded("of timerfd_settime(2)", lambda flags: not flags & ~_TIMER_FLAGS),
        "vsec": _OWN,
        "vnsec": _OWN,
        "isec": _OWN,
        "insec": _OWN,
    },
}


def check_epoll(images: ImageDirectory, dump: Dump) -> None:
    """Raises CheckpointInvalid("ImageDamaged") for a watch of a descriptor that no process with the file has.

    CRIU has descriptors of its own in each process while it restores it.
    """
    epolls = of_kind(images, EPOLL)
    if not epolls:
        return
    numbers: dict[int, set[int]] = defaultdict(set)
    holders: dict[int, set[int]] = defaultdict(set)
    for table, descriptor in held(images, dump):
        numbers[table].add(descriptor.fd)
        holders[descriptor.id].add(table)
    for entry in epolls:
        for watched in entry.epfd.tfd:
            if not any(watched.tfd in numbers[table] for table in holders[entry.id]):
                raise damaged(
                    images.path(Kind.FILES.file()),
                    f"has the epoll file {entry.id} watch descriptor {watched.tfd}, which nobody has who holds it",
                )


def epoll_refusals(images: ImageDirectory, live: RuntimeSpec) -> Iterator[Refused]:
    """TimerExceeds for a watch that keeps the machine awake."""
    if "CAP_BLOCK_SUSPEND" in live.capabilities.bounding:
        return
    for entry in of_kind(images, EPOLL):
        if any(watched.events & EPOLLWAKEUP for watched in entry.epfd.tfd):
            yield Refused(
                "TimerExceeds",
                "the checkpoint watches a file with EPOLLWAKEUP, which keeps the machine awake and takes "
                "CAP_BLOCK_SUSPEND; add it to the container's capabilities if that is meant",
            )
            return
