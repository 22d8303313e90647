"""Processes and threads: their tree, and what CRIU restores of each beside memory, files and namespaces.

Sources: criu/pstree.c (read_pstree_image, prepare_pstree_ids), criu/cr-restore.c (restore_one_task, restore_pgid,
sigreturn_restore, prepare_proc_misc), criu/pie/restorer.c, criu/sigact.c, criu/files.c (restore_fs).
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Any, Final

from shared.criu.criu_pb2 import CoreEntry, CpuinfoEntry, FsEntry, PstreeEntry, TaskKobjIdsEntry
from shared.criu.decode import damaged
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind
from shared.criu.open_files import RegularFile
from shared.criu.task_ids import TaskIds
from shared.criu.tasks import Task
from shared.errors import Refused
from shared.judge import waking
from shared.judge.limits import RESET_ON_FORK
from shared.judge.namespaces import restored_namespaces
from shared.judge.registers import THREAD_INFO, check_registers
from shared.judge.restorer_memory import RSEQ_WHY
from shared.judge.rules import Fields, Rules, bounded, default, derived, equal, field_refused, free
from shared.judge.writing import ImageFile, image_file

PID_MAX: Final = 1 << 22
"""linux/threads.h, PID_MAX_LIMIT."""
_SIGNALS: Final = 64
_SIGKILL, _SIGSTOP = 9, 19
_SIGACTIONS: Final = _SIGNALS - 2
"""criu/sigact.c: of all signals but those two, which have none."""
_SIGINFO_BYTES: Final = 128
"""sizeof(siginfo_t), of which CRIU copies so many whatever there is (criu/cr-restore.c, signal_to_mem)."""
_STOP_SIGNALS: Final = frozenset(range(19, 28))
"""SIGSTOP, SIGTSTP, SIGTTIN and SIGTTOU: 19 to 22 (asm-generic/signal.h), 23 to 27 on MIPS."""
_REGISTRATIONS: Final = 1 << 2 | 1 << 4 | 1 << 6 | 1 << 8
"""membarrier(2), MEMBARRIER_CMD_REGISTER_…"""
_POLICIES: Final = frozenset({0, 1, 2, 3, 5})
"""criu/cr-restore.c, validate_sched_parm: OTHER, FIFO, RR, BATCH, IDLE."""
_ROBUST_LIST_BYTES: Final = frozenset({0, 12, 24})
"""set_robust_list(2): of a list of 32 bits, and of 64."""
_STATES: Final = frozenset({1, 2, 3, 6})
_LEGACY: Final = "only CRIU before 3.9 wrote it, and it would replace what the thread's own field says"

_OWN_TREE: Final = "the tree of processes is checked as a whole, so that CRIU neither waits for ever nor leaves it"
_PART: Final = "its own fields have rules"
_UNREAD: Final = "CRIU does not read it for a restore"


def _is_siginfo(value: bytes) -> bool:
    """A signal that may be pending, of any sender: a process may queue itself any (rt_sigqueueinfo(2))."""
    if len(value) != _SIGINFO_BYTES:
        return False
    numbers = {int.from_bytes(value[:4], "little"), int.from_bytes(value[:4], "big")}
    return any(0 < number <= _SIGNALS and number not in (_SIGKILL, _SIGSTOP) for number in numbers)


NAMESPACES: Final = ("pid", "net", "ipc", "uts", "user", "cgroup", "time")
"""The kinds of which all tasks are in the container's."""

FIELDS: Final[Fields] = {
    "PstreeEntry": {
        "pid": bounded(_OWN_TREE, lambda pid: 0 < pid <= PID_MAX),
        "ppid": bounded(_OWN_TREE),
        "pgid": bounded(_OWN_TREE, lambda pgid: 0 < pgid <= PID_MAX),
        "sid": bounded(_OWN_TREE, lambda sid: 0 < sid <= PID_MAX),
        "threads": bounded(_OWN_TREE, lambda tid: 0 < tid <= PID_MAX),
    },
    "CoreEntry": {
        "mtype": bounded("it is the processor of all processes, and the node's"),
        **{field: bounded("it is there for the processor of the dump alone") for field in THREAD_INFO.values()},
        "tc": bounded("the first thread has it, and no other"),
        "ids": default("CRIU keeps it in an image of its own, which is the one that is judged"),
        "thread_core": bounded("every living thread has it"),
    },
    "TaskCoreEntry": {
        "task_state": bounded("a process lives, is stopped, or has ended", lambda state: state in _STATES),
        "exit_code": free("the parent learns it from a process that has ended"),
        "personality": bounded("CRIU does not restore it; it tells what the process had set"),
        "flags": free(_UNREAD),
        "blk_sigset": free("a process blocks what it likes; the kernel leaves SIGKILL and SIGSTOP out"),
        "comm": free("a process gives itself any name"),
        "timers": bounded(_PART),
        "rlimits": bounded("a living process has all of Linux' limits, and what is too high is lowered"),
        "cg_set": derived("the cgroup is the runtime's, and no process is moved to another one"),
        "signals_s": bounded(_PART),
        "old_seccomp_mode": default(_LEGACY),
        "old_seccomp_filter": default(_LEGACY),
        "loginuid": derived("CRIU would set it as root; processes keep the runtime's, as those of any container do"),
        "oom_score_adj": bounded("it is what Linux knows, and raised to the pod's", lambda it: -1000 <= it <= 1000),
        "sigactions": bounded("there is one of each signal but SIGKILL and SIGSTOP"),
        "child_subreaper": free("a process may set it by itself (prctl)"),
        "blk_sigset_extended": free("a process blocks what it likes; the kernel leaves SIGKILL and SIGSTOP out"),
        "stop_signo": bounded("CRIU sends it to a stopped process: it stops it", lambda it: it in _STOP_SIGNALS),
        "membarrier_registration_mask": bounded(
            "CRIU asks for what it names, so it names registrations", lambda mask: not mask & ~_REGISTRATIONS
        ),
    },
    "TaskRlimitsEntry": {"rlimits": bounded("there are those that Linux has")},
    "RlimitEntry": {
        "cur": free("up to the hard limit it is the process's own choice"),
        "max": bounded("where it is more than the pod's, it is lowered before the processes run"),
    },
    "ThreadCoreEntry": {
        "futex_rla": free("the kernel walks the list in the process's own memory when the thread ends"),
        "futex_rla_len": bounded("it is the size of a list's head", lambda size: size in _ROBUST_LIST_BYTES),
        "sched_nice": bounded("less than 0 takes CAP_SYS_NICE", lambda nice: -20 <= nice <= 19),
        "sched_policy": bounded(
            "others than SCHED_OTHER, _BATCH and _IDLE take CAP_SYS_NICE", lambda it: it & ~RESET_ON_FORK in _POLICIES
        ),
        "sched_prio": bounded("only a policy that takes CAP_SYS_NICE has one", lambda priority: priority < 100),
        "blk_sigset": free("a thread blocks what it likes; the kernel leaves SIGKILL and SIGSTOP out"),
        "sas": free("the stack for signals lies in the process's own memory; sigaltstack(2) checks it"),
        "pdeath_sig": bounded(
            f"it is a signal, sent to the thread itself when its parent ends, as the runtime soon does; {waking.WHY}",
            lambda signal: signal <= _SIGNALS and signal not in waking.SIGCONT,
        ),
        "signals_p": bounded(_PART),
        "creds": bounded("every living thread has its own, within the pod's"),
        "seccomp_mode": bounded("a thread has no filter, strict mode, or filters", lambda mode: mode <= 2),
        "seccomp_filter": bounded("it is a filter of seccomp.img, and no weaker than the pod's"),
        "comm": free("a thread gives itself any name"),
        "blk_sigset_extended": free("a thread blocks what it likes; the kernel leaves SIGKILL and SIGSTOP out"),
        "rseq_entry": bounded(_PART),
        "cg_set": derived("the cgroup is the runtime's, and no thread is moved to another one"),
    },
    "ThreadSasEntry": {
        name: free("the stack for signals lies in the process's own memory; sigaltstack(2) checks it")
        for name in ("ss_sp", "ss_size", "ss_flags")
    },
    "RseqEntry": {
        "rseq_abi_pointer": bounded(f"{RSEQ_WHY}, and names no sequence outside of it"),
        "rseq_abi_size": bounded(RSEQ_WHY),
        "signature": free("the kernel compares it with the process's own memory (rseq)"),
        "rseq_cs_pointer": free("it is put into that memory when the process has its own rights again"),
    },
    "SaEntry": {
        name: free("a process handles its signals as it likes (sigaction)")
        for name in ("sigaction", "flags", "restorer", "mask", "compat_sigaction", "mask_extended")
    },
    "SignalQueueEntry": {"signals": bounded(_PART)},
    "SiginfoEntry": {
        "siginfo": bounded("it is one whole signal that may be pending; a process may send itself any", _is_siginfo)
    },
    "TaskKobjIdsEntry": {
        "vm_id": free(_UNREAD),
        "files_id": bounded("it names a table of descriptors"),
        "fs_id": free(_UNREAD),
        "sighand_id": free(_UNREAD),
        **{
            f"{kind}_ns_id": derived("the container's, handed in by the runtime (namespaces.py, restored_namespaces)")
            for kind in NAMESPACES
        },
        "mnt_ns_id": equal("the container's, or one inside it for a pod that may make some"),
    },
    "FsEntry": {
        "cwd_id": bounded("it is a directory of files.img"),
        "root_id": bounded("it is a directory of files.img; another one than the container's takes CAP_SYS_CHROOT"),
        "umask": bounded("a process sets its own", lambda mask: mask <= 0o777),
    },
    "CpuinfoEntry": {name: free("CRIU compares it with the node's processor, if told to")
                     for name in ("x86_entry", "ppc64_entry", "s390_entry")},
    "CpuinfoX86Entry": {
        name: free("CRIU compares it with the node's processor, if told to")
        for name in (
            "vendor_id", "cpu_family", "model", "stepping", "capability_ver", "capability", "model_id",
            "xfeatures_mask", "xsave_size", "xsave_size_max",
        )
    },
    "CpuinfoPpc64Entry": {
        name: free("CRIU compares it with the node's processor, if told to") for name in ("endian", "hwcap")
    },
    "CpuinfoS390Entry": {"hwcap": free("CRIU compares it with the node's processor, if told to")},
}  # fmt: skip


def relations(images: ImageDirectory, dump: Dump) -> Iterator[Refused]:
    """FieldExceeds and ImageDamaged for a tree that CRIU would hang or end on, or that reaches outside itself."""
    yield from _tree(images, dump)
    files = {file.id: file for file in dump.files if isinstance(file, RegularFile)}
    for task in dump.tasks:
        _check_threads(images, task, dump.root.machine)
        if task.alive:
            for what, number in (("working directory", task.cwd_file), ("root directory", task.root_file)):
                file = files.get(number)
                if file is None or (file.mode is not None and not stat.S_ISDIR(file.mode)):
                    raise damaged(
                        images.path(Kind.FS.file(task.pid)),
                        f"names a {what} that files.img does not have, or that is no directory",
                    )


def process_refusals(dump: Dump, pid_max: int) -> Iterator[Refused]:
    """FieldExceeds for numbers above ``pid_max``, the node's kernel.pid_max: CRIU would raise it (prepare_pstree)."""
    highest = max(number for task in dump.tasks for number in (task.pid, task.pgid, task.sid))
    if highest > pid_max:
        yield Refused(
            "FieldExceeds",
            f"the checkpoint has a process {highest}, the node has numbers up to {pid_max} and CRIU would raise that "
            "for the whole node; set the sysctl kernel.pid_max of the node higher if that is meant",
        )


def _tree(images: ImageDirectory, dump: Dump) -> Iterator[Refused]:
    name = images.path(Kind.PSTREE.file())
    tasks = {task.pid: task for task in dump.tasks}
    others = {thread.tid for task in dump.tasks for thread in task.threads[1:]}
    for entry in images.entries(Kind.PSTREE, PstreeEntry):
        task = tasks[entry.pid]
        for field, number in (("pgid", task.pgid), ("sid", task.sid)):
            # criu/pstree.c, lookup_create_item, ends on a thread; 0 is a group outside the container
            if number in others or number == 0:
                yield field_refused(name, entry, field, number, "it is no process, so no process can lead by it")
        if task is dump.root and (task.pgid, task.sid) != (task.pid, task.pid):
            # CRIU would leave it in the session of the program that calls CRIU (criu/cr-restore.c, restore_sid)
            yield field_refused(name, entry, "sid", task.sid, "a runtime starts a container's first process as leader")
        leader = tasks.get(task.pgid)
        if leader is not None and leader.pgid != leader.pid:
            # criu/cr-restore.c, restore_pgid, waits for the leader to make the group, without end
            yield field_refused(name, entry, "pgid", task.pgid, "that process leads no group, so CRIU would wait")
        if (parent := tasks.get(task.ppid)) is not None and not parent.alive:
            yield field_refused(name, entry, "ppid", task.ppid, "a process that has ended has no children")


def _check_threads(images: ImageDirectory, task: Task, machine: str) -> None:
    """What CRIU takes for granted of each core image (criu/cr-restore.c, open_cores and sigreturn_restore)."""
    name = images.path(Kind.CORE.file(task.pid))
    leader = images.one(Kind.CORE, CoreEntry, task.pid)
    if task.machine != machine:
        raise damaged(name, f"is of {task.machine}, the first process of {machine}")
    if not task.alive:
        return
    tc = leader.tc
    if len(tc.sigactions) != _SIGACTIONS:
        raise field_refused(name, tc, "sigactions", f"{len(tc.sigactions)} entries", "CRIU wants one of each signal")
    # Without them CRIU looks for images of its version 1 (criu/cr-restore.c), which are not written.
    if missing := next((part for part in ("timers", "signals_s") if not tc.HasField(part)), None):
        raise damaged(name, f"lacks {missing}, as CRIU before 2.0 wrote it")
    for thread in task.threads:
        image = images.path(Kind.CORE.file(thread.tid))
        core = leader if thread is task.threads[0] else images.one(Kind.CORE, CoreEntry, thread.tid)
        if core is not leader and core.HasField("tc"):
            raise field_refused(image, core, "tc", core.tc, "only the first thread of a process has it")
        if not core.thread_core.HasField("signals_p"):
            raise damaged(image, "lacks signals_p, as CRIU before 2.0 wrote it")
        if task.ppid == 0 and core.thread_core.pdeath_sig == waking.SIGKILL:
            why = "the runtime is its parent and ends after the restore, which would kill it"
            raise field_refused(image, core.thread_core, "pdeath_sig", waking.SIGKILL, why)
        if core.mtype != leader.mtype:
            raise damaged(image, f"is of another processor than {name}")
        check_registers(core, machine, image)


def image_files(images: ImageDirectory, dump: Dump, rules: Rules) -> Iterator[ImageFile]:
    """pstree.img, and of each process core, ids and fs; cpuinfo.img where the dump has it."""
    entries = images.entries(Kind.PSTREE, PstreeEntry)
    for entry in entries:
        entry.threads[0] = entry.pid  # which CRIU does not set for a zombie (shared/criu/tasks.py, read_tree)
        rules.apply(entry, images.path(Kind.PSTREE.file()))
    yield image_file(Kind.PSTREE, entries)
    restored = restored_namespaces(dump, dump.root)
    for task in dump.tasks:
        yield from _of_task(images, restored, task, rules)
    if Kind.CPUINFO.file() in images:
        yield _applied(images, rules, Kind.CPUINFO, CpuinfoEntry)


def _of_task(images: ImageDirectory, restored: TaskIds, task: Task, rules: Rules) -> Iterator[ImageFile]:
    leader = images.one(Kind.CORE, CoreEntry, task.pid)
    if not task.alive:
        rules.apply(leader, images.path(Kind.CORE.file(task.pid)))
        yield image_file(Kind.CORE, [_of_ended(leader)], task.pid)
        return
    for thread in task.threads:
        core = leader if thread is task.threads[0] else images.one(Kind.CORE, CoreEntry, thread.tid)
        rules.apply(core, images.path(Kind.CORE.file(thread.tid)))
        creds = core.thread_core.creds
        if not creds.groups:
            # CRIU skips an empty list, which would leave the groups that CRIU itself has (rst_prep_creds_args). The
            # group that the thread acts as anyway gives it nothing more (linux kernel/groups.c, in_egroup_p).
            creds.groups.append(creds.egid)
        yield image_file(Kind.CORE, [core], thread.tid)
    yield _ids(images, restored, task, rules)
    yield _applied(images, rules, Kind.FS, FsEntry, task.pid)


def _ids(images: ImageDirectory, restored: TaskIds, task: Task, rules: Rules) -> ImageFile:
    entry = images.one(Kind.IDS, TaskKobjIdsEntry, task.pid)
    rules.apply(entry, images.path(Kind.IDS.file(task.pid)))
    for kind in NAMESPACES:
        if number := getattr(restored, f"{kind}_ns"):
            setattr(entry, f"{kind}_ns_id", number)
    return image_file(Kind.IDS, [entry], task.pid)


def _of_ended(core: CoreEntry) -> CoreEntry:
    """The core of a process that has ended, of which CRIU reads the state, the exit code and the name."""
    written = CoreEntry(mtype=core.mtype)
    for field in ("task_state", "exit_code", "personality", "flags", "blk_sigset", "comm"):
        setattr(written.tc, field, getattr(core.tc, field))
    return written


def _applied(images: ImageDirectory, rules: Rules, kind: Kind, message: Any, number: int | str = "") -> ImageFile:
    entry = images.one(kind, message, number)
    rules.apply(entry, images.path(kind.file(number)))
    return image_file(kind, [entry], number)
