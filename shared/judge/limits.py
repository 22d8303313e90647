"""Resource limits and scheduling against what the live container gets.

Sources: setrlimit(2), sched(7), CRIU criu/cr-restore.c (prepare_rlimits) and
criu/pie/restorer.c.
"""

from __future__ import annotations

from collections.abc import Iterator

from shared.criu.dump import Dump
from shared.criu.tasks import Task
from shared.errors import Refused
from shared.judge.corrections import RLIMITS
from shared.judge.naming import name
from shared.spec import RuntimeSpec

ORDINARY_POLICIES = frozenset({0, 3, 5})
"""SCHED_OTHER, SCHED_BATCH and SCHED_IDLE (linux/sched.h)."""
RESET_ON_FORK = 0x40000000
"""sched(7): SCHED_RESET_ON_FORK takes rights away, so it takes no right to set."""


def limit_refusals(dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """RlimitExceeds and SchedulerExceeds; limits that are merely higher are lowered (corrections.py)."""
    rights = live.capabilities.bounding
    for task in dump.tasks:
        if not task.alive:
            continue
        if "CAP_SYS_RESOURCE" not in rights:
            yield from _resources(task)
        if "CAP_SYS_NICE" not in rights:
            yield from _scheduling(task)


def _resources(task: Task) -> Iterator[Refused]:
    if len(task.limits) < len(RLIMITS):
        yield Refused(
            "RlimitExceeds",
            f"process {name(task)} of the checkpoint has {len(task.limits)} of {len(RLIMITS)} resource limits, so the "
            "node's own would hold for the others; take a new checkpoint",
        )


def _scheduling(task: Task) -> Iterator[Refused]:
    for thread in task.threads:
        if thread.sched_policy & ~RESET_ON_FORK not in ORDINARY_POLICIES or thread.nice < 0:
            how = f"nice {thread.nice}" if thread.nice < 0 else f"scheduling policy {thread.sched_policy}"
            yield Refused(
                "SchedulerExceeds",
                f"process {name(task)} of the checkpoint runs with {how}, which takes CAP_SYS_NICE and the pod does "
                "not grant it; add it to the container's capabilities if that is meant",
            )
