"""Small differences that are put right in the restored processes, before they run, instead of refused.

Limits are only ever lowered here, and paths only ever covered, which takes nothing that the pod gives; root and
volumes get the access that the pod gives them.
Sources: prlimit(2), proc_pid_oom_score_adj(5), runtime-spec config-linux.md (Masked Paths, Readonly Paths); CRIU
opens a directory again only if its mode is as dumped (criu/files-reg.c, open_path).
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import Final

from shared.criu.dump import Dump
from shared.judge.access import recursive_read_only
from shared.judge.mount_tree import uncovered
from shared.spec import Rlimit, RuntimeSpec

RLIMITS = (
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
)
"""By number; linux/asm-generic/resource.h."""
_ROOT_MODE: Final = 0o755
"""What containerd gives a container's root; containers/storage (Podman, CRI-O): 0555 where no layer says."""


@dataclass(frozen=True, slots=True)
class Corrections:
    """What every restored process gets."""

    oom_score_adj: int | None
    """At least this; None: as dumped."""
    limits: tuple[Rlimit, ...]
    masked: tuple[str, ...] = ()
    """Paths of /proc and /sys to be covered."""
    read_only: tuple[str, ...] = ()
    """Paths of /proc and /sys to be made read-only."""
    recursive: tuple[str, ...] = ()
    """Mounts to be made read-only with all that is mounted below them; CRIU makes the top one so."""
    root_mode: int | None = None
    """Permission bits that the root directory had, where they are not the usual ones."""
    inherited: tuple[Rlimit, ...] = ()
    """The highest hard limits that processes of the dump have, of those that the pod's containers get from the runtime:
    what is more than the runtime's own is lowered to that."""


def corrections(dump: Dump, live: RuntimeSpec) -> Corrections:
    """The live container's OOM score and hard limits, where some process of the dump has more; its masks where open.

    Of limits that the spec does not name, an ordinary container gets the runtime's. Only a hard limit binds: the soft
    one may be raised up to it, beyond it with CAP_SYS_RESOURCE alone.
    """
    masked, read_only = uncovered(dump, live)
    recursive = recursive_read_only(live)
    root_mode = _root_mode(dump)
    if "CAP_SYS_RESOURCE" in live.capabilities.bounding:
        return Corrections(None, (), masked, read_only, recursive, root_mode)
    alive = [task for task in dump.tasks if task.alive]
    score = live.oom_score_adj or 0
    # CRIU writes neither an absent score nor 0 (criu/cr-restore.c), so that the runtime's own would stay.
    spared = any(not task.oom_score_adj or task.oom_score_adj < score for task in alive)
    limits = []
    for limit in live.rlimits:
        number = RLIMITS.index(limit.type) if limit.type in RLIMITS else len(RLIMITS)
        if any(len(task.limits) > number and task.limits[number].hard > limit.hard for task in alive):
            limits.append(limit)
    named = {limit.type for limit in live.rlimits}
    inherited = []
    for number, kind in enumerate(RLIMITS):
        highest = max((task.limits[number].hard for task in alive if len(task.limits) > number), default=0)
        if kind not in named and highest:
            inherited.append(Rlimit(kind, highest, highest))
    return Corrections(
        score if spared else None, tuple(limits), masked, read_only, recursive, root_mode, tuple(inherited)
    )


def _root_mode(dump: Dump) -> int | None:
    root = dump.regular_file(dump.root.root_file)
    if root is None or root.mode is None or stat.S_IMODE(root.mode) == _ROOT_MODE:
        return None
    return stat.S_IMODE(root.mode)
