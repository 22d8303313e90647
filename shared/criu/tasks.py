"""The process tree of a dump: every task with its threads' credentials and limits.

Sources: images/{pstree,core,creds,rlimit}.proto, compel/include/uapi/task-state.h, criu/pstree.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from shared.criu.criu_pb2 import CoreEntry, CredsEntry, FsEntry, PstreeEntry, TaskKobjIdsEntry
from shared.criu.decode import damaged
from shared.criu.images import ImageDirectory, Kind, text
from shared.criu.task_ids import TaskIds

TaskState = Literal["alive", "stopped", "dead", "zombie"]
Machine = Literal["x86_64", "arm", "aarch64", "ppc64", "s390", "mips", "loongarch64", "riscv64"]

TASKS_MAX: Final = 32_768
THREADS_MAX: Final = 131_072
LIMITS_MAX: Final = 64
"""Linux has 16 (RLIM_NLIMITS)."""
GROUPS_MAX: Final = 65_536
"""linux/limits.h, NGROUPS_MAX."""
_STATES: Final[dict[int, TaskState]] = {1: "alive", 2: "dead", 3: "stopped", 6: "zombie"}
_MACHINES: Final[dict[int, Machine]] = {
    1: "x86_64",
    2: "arm",
    3: "aarch64",
    4: "ppc64",
    5: "s390",
    6: "mips",
    7: "loongarch64",
    8: "riscv64",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the kernel lets a thread do; capability sets as bit masks (bit n = capability n)."""

    uid: int
    euid: int
    suid: int
    fsuid: int
    gid: int
    egid: int
    sgid: int
    fsgid: int
    groups: tuple[int, ...]
    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int
    securebits: int
    no_new_privs: bool
    lsm_profile: str
    lsm_socket_label: str = ""
    """SELinux label of the sockets it makes (/proc/self/attr/sockcreate)."""
    apparmor_stack: bool = False
    """Whether the dump has AppArmor profiles of its own to stack."""


@dataclass(frozen=True, slots=True)
class Thread:
    tid: int
    comm: str
    credentials: Credentials
    seccomp_mode: int
    """0 disabled, 1 strict, 2 filter (linux/seccomp.h)."""
    seccomp_filter: int | None
    """Index of its last filter in seccomp.img."""
    sched_policy: int
    sched_priority: int
    nice: int


@dataclass(frozen=True, slots=True)
class Limit:
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class Task:
    pid: int
    ppid: int
    """0: the root of the tree."""
    pgid: int
    sid: int
    state: TaskState
    comm: str
    machine: Machine
    exit_code: int
    threads: tuple[Thread, ...]
    """The leader first; none when the task is dead."""
    ids: TaskIds
    limits: tuple[Limit, ...]
    """By number, RLIMIT_CPU = 0 onwards (linux/resource.h)."""
    oom_score_adj: int | None
    cwd_file: int
    """Ids of regular files."""
    root_file: int
    umask: int | None
    cgroup_set: int
    """Which set of cgroup.img it was in; 0: not recorded."""
    personality: int = 0
    """personality(2)."""
    timer_clocks: tuple[int, ...] = ()
    """CLOCK_… of each POSIX timer (linux/time.h)."""

    @property
    def alive(self) -> bool:
        return self.state in ("alive", "stopped")


def read_tasks(images: ImageDirectory) -> tuple[Task, ...]:
    """The tree, parents before children as CRIU writes it.

    Raises CheckpointInvalid: FileMissing, WrongMagic, ImageDamaged.
    """
    entries = read_tree(images)
    return tuple(_task(images, entry) for entry in entries)


def read_tree(images: ImageDirectory) -> list[PstreeEntry]:
    """pstree.img, checked to be one tree of distinct tasks and threads, each task the first of its own threads.

    The number a task has among its threads is taken for what CRIU takes it: the task itself, whatever is written there.
    CRIU does not read it (criu/pstree.c, read_one_pstree_item) and for a zombie writes it from memory it never set
    (criu/seize.c, collect_threads).
    """
    name = images.path(Kind.PSTREE.file())
    entries = images.entries(Kind.PSTREE, PstreeEntry)
    tasks: set[int] = set()
    threads: set[int] = set()
    thread_count = 0
    for entry in entries:
        if entry.pid == 0 or entry.pid in tasks:
            raise damaged(name, f"has task {entry.pid} twice, or a task without a number")
        if entry.ppid != 0 and entry.ppid not in tasks:
            raise damaged(name, f"has task {entry.pid} before its parent {entry.ppid}")
        if entry.ppid == 0 and tasks:
            raise damaged(name, f"has a second root, task {entry.pid}")
        if not entry.threads:
            raise damaged(name, f"has no thread of task {entry.pid}")
        entry.threads[0] = entry.pid
        thread_count += len(entry.threads)
        if len(tasks) >= TASKS_MAX or thread_count > THREADS_MAX:
            raise damaged(name, "has too many tasks or threads")
        tasks.add(entry.pid)
        threads.update(entry.threads)
    if not tasks:
        raise damaged(name, "has no task")
    if len(threads) != thread_count:
        raise damaged(name, "has one thread twice")
    return entries


def _task(images: ImageDirectory, entry: PstreeEntry) -> Task:
    name = images.path(Kind.CORE.file(entry.pid))
    core = images.one(Kind.CORE, CoreEntry, entry.pid)
    if core.tc.task_state not in _STATES or core.mtype not in _MACHINES:
        raise damaged(name, f"has the unknown task state {core.tc.task_state} or machine {core.mtype}")
    state = _STATES[core.tc.task_state]
    alive = state in ("alive", "stopped")
    if alive and not 0 < len(core.tc.rlimits.rlimits) <= LIMITS_MAX:
        raise damaged(name, "has no resource limits, as CRIU before 2.0, or too many")
    if core.tc.HasField("old_seccomp_mode") or core.tc.HasField("old_seccomp_filter"):
        # CRIU lets this override the thread's own mode (criu/cr-restore.c), so it could hide a missing filter
        raise damaged(name, "has the seccomp mode of CRIU before 3.9, which would replace the thread's")
    if not alive and len(entry.threads) > 1:
        raise damaged(images.path(Kind.PSTREE.file()), f"has threads of task {entry.pid}, which has ended")
    threads = _threads(images, entry.threads, core) if alive else ()
    has_ids = alive or Kind.IDS.file(entry.pid) in images
    ids = images.one(Kind.IDS, TaskKobjIdsEntry, entry.pid) if has_ids else TaskKobjIdsEntry()
    fs = images.one(Kind.FS, FsEntry, entry.pid) if alive else FsEntry()
    return Task(
        pid=entry.pid,
        ppid=entry.ppid,
        pgid=entry.pgid,
        sid=entry.sid,
        state=state,
        comm=text(core.tc.comm, name),
        machine=_MACHINES[core.mtype],
        exit_code=core.tc.exit_code,
        threads=threads,
        ids=TaskIds.of(ids),
        limits=tuple(Limit(limit.cur, limit.max) for limit in core.tc.rlimits.rlimits),
        oom_score_adj=core.tc.oom_score_adj if core.tc.HasField("oom_score_adj") else None,
        cwd_file=fs.cwd_id,
        root_file=fs.root_id,
        umask=fs.umask if fs.HasField("umask") else None,
        cgroup_set=core.thread_core.cg_set or core.tc.cg_set,
        personality=core.tc.personality,
        timer_clocks=tuple(timer.clock_id for timer in core.tc.timers.posix),
    )


def _threads(images: ImageDirectory, tids: Sequence[int], leader: CoreEntry) -> tuple[Thread, ...]:
    return tuple(
        _thread(images, tid, leader if index == 0 else images.one(Kind.CORE, CoreEntry, tid))
        for index, tid in enumerate(tids)
    )


def _thread(images: ImageDirectory, tid: int, core: CoreEntry) -> Thread:
    name = images.path(Kind.CORE.file(tid))
    state = core.thread_core
    if not state.HasField("creds"):
        raise damaged(name, "has no credentials; CRIU before 1.6 is not read")
    return Thread(
        tid=tid,
        comm=text(state.comm, name),
        credentials=_credentials(state.creds, name),
        seccomp_mode=state.seccomp_mode,
        seccomp_filter=state.seccomp_filter if state.HasField("seccomp_filter") else None,
        sched_policy=state.sched_policy,
        sched_priority=state.sched_prio,
        nice=state.sched_nice,
    )


_IDS_OF_USER: Final = ("uid", "euid", "suid", "fsuid", "gid", "egid", "sgid", "fsgid")


def _credentials(creds: CredsEntry, name: str) -> Credentials:
    absent = [field for field in _IDS_OF_USER if not creds.HasField(field)]
    if absent:
        raise damaged(name, f"has no {absent[0]} in its credentials")
    if len(creds.groups) > GROUPS_MAX:
        raise damaged(name, f"has {len(creds.groups)} groups")
    return Credentials(
        uid=creds.uid,
        euid=creds.euid,
        suid=creds.suid,
        fsuid=creds.fsuid,
        gid=creds.gid,
        egid=creds.egid,
        sgid=creds.sgid,
        fsgid=creds.fsgid,
        groups=tuple(creds.groups),
        inheritable=_mask(creds.cap_inh, name),
        permitted=_mask(creds.cap_prm, name),
        effective=_mask(creds.cap_eff, name),
        bounding=_mask(creds.cap_bnd, name),
        ambient=_mask(creds.cap_amb, name) if creds.cap_amb else 0,  # written since CRIU 4.1
        securebits=creds.secbits,
        no_new_privs=bool(creds.no_new_privs),
        lsm_profile=text(creds.lsm_profile, name),
        lsm_socket_label=text(creds.lsm_sockcreate, name),
        apparmor_stack=bool(creds.apparmor_data),
    )


def _mask(words: Sequence[int], name: str) -> int:
    """CRIU stores a capability set as two 32-bit words, the low one first, and reads two whatever there is.

    Sources: criu/include/common/config.h (CR_CAP_SIZE), criu/cr-restore.c of 3.17 (rst_prep_creds_args).
    """
    if len(words) != 2:
        raise damaged(name, f"has a capability set of {len(words)} words")
    return sum(word << 32 * index for index, word in enumerate(words))
