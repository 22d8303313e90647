from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from shared.archive import CheckpointFiles
from shared.criu import tasks as tasks_module
from shared.criu.capabilities import capability_names
from shared.criu.criu_pb2 import PstreeEntry, RlimitEntry, TaskCoreEntry
from shared.criu.images import ImageDirectory, Kind
from shared.criu.tasks import Limit, Task, read_tasks
from tests.support.checkpoints import SyntheticDump, completed, core_of_task

Refused = Callable[..., Any]
Dumped = Callable[..., CheckpointFiles]


def tasks(dump: SyntheticDump, dumped: Dumped) -> tuple[Task, ...]:
    return read_tasks(ImageDirectory(dumped(dump), "checkpoint"))


def tree(dump: SyntheticDump) -> list[PstreeEntry]:
    return dump.images["pstree.img"]  # type: ignore[return-value]


def test_tree_with_its_states(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes(3)
    dump.core(2).tc.task_state = 3
    dump.core(3).tc.task_state = 2
    dump.core(3).tc.exit_code = 256
    for name in ("ids-3.img", "fs-3.img", "mm-3.img"):
        del dump.images[name]
    root, stopped, dead = tasks(dump, dumped)
    assert [(task.pid, task.ppid, task.state, task.alive) for task in (root, stopped, dead)] == [
        (1, 0, "alive", True),
        (2, 1, "stopped", True),
        (3, 1, "dead", False),
    ]
    assert (root.comm, root.machine, root.pgid, root.sid) == ("app", "x86_64", 1, 1)
    assert (dead.exit_code, dead.threads, dead.ids.namespaces) == (256, (), (0,) * 8)
    assert (root.cwd_file, root.root_file, root.umask, root.oom_score_adj) == (5, 5, 0o22, 0)
    assert root.limits == (Limit((1 << 64) - 1, (1 << 64) - 1),) * 16


def test_zombies_are_numbered_as_criu_leaves_them(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes(3)
    for pid in (2, 3):
        dump.core(pid).tc.task_state = 2
        tree(dump)[pid - 1].threads[:] = [1]
    assert [(task.pid, task.state, task.threads) for task in tasks(dump, dumped)[1:]] == [
        (2, "dead", ()),
        (3, "dead", ()),
    ]


def test_credentials_of_each_thread(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    tree(dump)[0].threads.append(7)
    core = core_of_task()
    core.ClearField("tc")
    creds = core.thread_core.creds
    creds.uid, creds.euid, creds.suid, creds.fsuid = 1, 2, 3, 4
    creds.gid, creds.egid, creds.sgid, creds.fsgid = 5, 6, 7, 8
    creds.groups[:] = [9, 10]
    creds.cap_inh[:], creds.cap_amb[:] = [1, 1], [1 << 10, 0]
    creds.secbits, creds.no_new_privs, creds.lsm_profile = 47, 1, b"profile (enforce)"
    core.thread_core.seccomp_mode, core.thread_core.seccomp_filter = 2, 0
    core.thread_core.sched_policy, core.thread_core.sched_prio, core.thread_core.sched_nice = 1, 50, -5
    dump.images["core-7.img"] = [core]
    (task,) = tasks(dump, dumped)
    leader, thread = task.threads
    assert (leader.tid, thread.tid) == (1, 7)
    assert (leader.credentials.uid, leader.seccomp_mode, leader.seccomp_filter) == (0, 0, None)
    found = thread.credentials
    assert (found.uid, found.euid, found.suid, found.fsuid) == (1, 2, 3, 4)
    assert (found.gid, found.egid, found.sgid, found.fsgid) == (5, 6, 7, 8)
    assert found.groups == (9, 10)
    assert (found.inheritable, found.ambient) == ((1 << 32) + 1, 1 << 10)
    assert found.permitted == found.effective == found.bounding == 0xA80425FB
    assert (found.securebits, found.no_new_privs, found.lsm_profile) == (47, True, "profile (enforce)")
    assert (thread.seccomp_mode, thread.seccomp_filter) == (2, 0)
    assert (thread.sched_policy, thread.sched_priority, thread.nice) == (1, 50, -5)


def test_capability_names() -> None:
    assert capability_names(0) == frozenset()
    assert capability_names(1 | 1 << 21 | 1 << 40) == {"CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"}
    assert capability_names(1 << 63) == {"CAP_63"}
    assert len(capability_names(0xA80425FB)) == 14


def drop(field: str) -> Callable[[SyntheticDump], None]:
    def change(dump: SyntheticDump) -> None:
        core = completed(dump.core(1))
        core.thread_core.creds.ClearField(field)
        content = core.SerializePartialToString()
        dump.raw["core-1.img"] = Kind.CORE.header + struct.pack("<I", len(content)) + content

    return change


def pstree(**fields: Any) -> Callable[[SyntheticDump], None]:
    return lambda dump: tree(dump).append(PstreeEntry(**({"pgid": 1, "sid": 1} | fields)))


def changed(**fields: Any) -> Callable[[SyntheticDump], None]:
    def change(dump: SyntheticDump) -> None:
        for key, value in fields.items():
            setattr(dump.core(1).tc, key, value)

    return change


def legacy_seccomp(dump: SyntheticDump) -> None:
    dump.core(1).thread_core.seccomp_mode = 2
    dump.core(1).tc.old_seccomp_mode = 0


def without(name: str) -> Callable[[SyntheticDump], None]:
    return lambda dump: dump.images.pop(name) and None


def wide_capabilities(dump: SyntheticDump) -> None:
    dump.core(1).thread_core.creds.cap_eff.append(1)


def many_limits(dump: SyntheticDump) -> None:
    dump.core(1).tc.rlimits.rlimits.extend([RlimitEntry(cur=1, max=1)] * 50)


def many_groups(dump: SyntheticDump) -> None:
    dump.core(1).thread_core.creds.groups.extend(range(65_536))


def zombie_with_threads(dump: SyntheticDump) -> None:
    tree(dump).append(PstreeEntry(pid=2, ppid=1, pgid=1, sid=1, threads=[2, 3]))
    dump.images["core-2.img"] = [core_of_task()]
    dump.core(2).tc.task_state = 2


CASES: dict[str, tuple[Callable[[SyntheticDump], None], str, str, str]] = {
    "no task": (lambda dump: tree(dump).clear(), "ImageDamaged", "pstree.img", "has no task"),
    "pid 0": (pstree(pid=0, ppid=1, threads=[0]), "ImageDamaged", "pstree.img", "task 0"),
    "pid twice": (pstree(pid=1, ppid=1, threads=[1]), "ImageDamaged", "pstree.img", "task 1 twice"),
    "two roots": (pstree(pid=2, ppid=0, threads=[2]), "ImageDamaged", "pstree.img", "second root"),
    "unknown parent": (pstree(pid=2, ppid=9, threads=[2]), "ImageDamaged", "pstree.img", "before its parent 9"),
    "own parent": (pstree(pid=2, ppid=2, threads=[2]), "ImageDamaged", "pstree.img", "before its parent 2"),
    "no threads": (pstree(pid=2, ppid=1), "ImageDamaged", "pstree.img", "no thread of task 2"),
    "leader not first": (pstree(pid=2, ppid=1, threads=[3, 2]), "ImageDamaged", "pstree.img", "one thread twice"),
    "threads of a zombie": (zombie_with_threads, "ImageDamaged", "pstree.img", "threads of task 2, which has ended"),
    "thread twice": (pstree(pid=2, ppid=1, threads=[2, 2]), "ImageDamaged", "pstree.img", "one thread twice"),
    "thread of another": (pstree(pid=2, ppid=1, threads=[2, 1]), "ImageDamaged", "pstree.img", "one thread twice"),
    "unknown state": (changed(task_state=9), "ImageDamaged", "core-1.img", "unknown task state 9"),
    "no state": (lambda dump: dump.core(1).ClearField("tc"), "ImageDamaged", "core-1.img", "unknown task state 0"),
    "unknown machine": (lambda dump: setattr(dump.core(1), "mtype", 99), "ImageDamaged", "core-1.img", "machine 99"),
    "zero byte in the name": (changed(comm=b"a\0b"), "ImageDamaged", "core-1.img", "zero byte"),
    "no limits": (lambda dump: dump.core(1).tc.ClearField("rlimits"), "ImageDamaged", "core-1.img", "limits"),
    "too many limits": (many_limits, "ImageDamaged", "core-1.img", "limits"),
    "too many groups": (many_groups, "ImageDamaged", "core-1.img", "65537 groups"),
    "old seccomp mode": (legacy_seccomp, "ImageDamaged", "core-1.img", "seccomp"),
    "old seccomp filter": (changed(old_seccomp_filter=0), "ImageDamaged", "core-1.img", "seccomp"),
    "no credentials": (
        lambda dump: dump.core(1).thread_core.ClearField("creds"),
        "ImageDamaged",
        "core-1.img",
        "creden",
    ),
    "no uid": (drop("uid"), "ImageDamaged", "core-1.img", "lacks the field thread_core.creds.uid"),
    "no fsgid": (drop("fsgid"), "ImageDamaged", "core-1.img", "lacks the field thread_core.creds.fsgid"),
    "three capability words": (wide_capabilities, "ImageDamaged", "core-1.img", "capability set of 3 words"),
    "no core": (without("core-1.img"), "FileMissing", "core-1.img", "no file"),
    "no ids": (without("ids-1.img"), "FileMissing", "ids-1.img", "no file"),
    "no fs": (without("fs-1.img"), "FileMissing", "fs-1.img", "no file"),
    "no tree": (without("pstree.img"), "FileMissing", "pstree.img", "no file"),
}


@pytest.mark.parametrize("case", CASES)
def test_odd_tree_is_refused(case: str, dumped: Dumped, refused: Refused) -> None:
    spoil, reason, file, words = CASES[case]
    dump = SyntheticDump.of_processes()
    spoil(dump)
    with refused(reason, f"checkpoint/{file}", words):
        tasks(dump, dumped)


def test_core_of_a_second_thread_is_needed(dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    tree(dump)[0].threads.append(7)
    with refused("FileMissing", "core-7.img"):
        tasks(dump, dumped)


def test_ids_of_a_dead_task_count_because_criu_would_use_them(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes(2)
    dump.images["core-2.img"] = [core_of_task()]
    dump.core(2).tc.CopyFrom(TaskCoreEntry(task_state=2, exit_code=0, comm=b"gone"))
    dump.ids(2).user_ns_id = 77
    assert tasks(dump, dumped)[1].ids.user_ns == 77


@pytest.mark.parametrize("limit", ["TASKS_MAX", "THREADS_MAX"])
def test_too_many_tasks_are_refused(
    limit: str, dumped: Dumped, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setattr(tasks_module, limit, 2)
    assert len(tasks(SyntheticDump.of_processes(2), dumped)) == 2
    with refused("ImageDamaged", "too many"):
        tasks(SyntheticDump.of_processes(3), dumped)
