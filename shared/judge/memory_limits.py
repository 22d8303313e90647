"""Memory that takes rights or limits which the live pod may not give: at the lowest addresses, and locked.

CRIU maps areas as root, before it sets limits and drops capabilities (criu/pie/restorer.c).
Sources: linux security/commoncap.c (cap_mmap_addr), mm/mlock.c (can_do_mlock, mlock_future_ok).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.criu.areas import GUARD, locked_flag
from shared.criu.criu_pb2 import MmEntry
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind
from shared.criu.tasks import Task
from shared.errors import Refused
from shared.judge.corrections import RLIMITS
from shared.judge.naming import name
from shared.spec import RuntimeSpec

ADDRESS_MIN: Final = 65_536
"""Of vm.mmap_min_addr: what lies below may be what a flaw of the kernel reads instead of nothing."""
_MEMLOCK: Final = RLIMITS.index("RLIMIT_MEMLOCK")


def memory_refusals(images: ImageDirectory, dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """CapabilitiesExceed for memory at the lowest addresses, RlimitExceeds for more locked memory than the limit."""
    rights = live.capabilities.bounding
    locked = locked_flag(dump.root.machine)
    for task in dump.tasks:
        if not task.alive:
            continue
        areas = [area for area in images.one(Kind.MM, MmEntry, task.pid).vmas if area.status != GUARD]
        if "CAP_SYS_RAWIO" not in rights and areas and areas[0].start < ADDRESS_MIN:
            yield Refused(
                "CapabilitiesExceed",
                f"process {name(task)} of the checkpoint has memory at the address {areas[0].start:#x}, which takes "
                "CAP_SYS_RAWIO and the pod does not grant it; add it to the container's capabilities if that is meant",
            )
        if "CAP_IPC_LOCK" in rights:
            continue
        size = sum(area.end - area.start for area in areas if area.flags & locked)
        if size and size > (limit := _lock_limit(task, live)):
            yield Refused(
                "RlimitExceeds",
                f"process {name(task)} of the checkpoint has {size} bytes of memory locked, the pod's RLIMIT_MEMLOCK "
                f"is {limit}; add CAP_IPC_LOCK to the container's capabilities if that is meant",
            )


def _lock_limit(task: Task, live: RuntimeSpec) -> int:
    limits = [limit.hard for limit in live.rlimits if limit.type == "RLIMIT_MEMLOCK"]
    return min([task.limits[_MEMLOCK].hard if len(task.limits) > _MEMLOCK else 0, *limits])
