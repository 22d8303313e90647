"""Processes, registers, filters, timers and memory: what no kernel would give is refused, the rest is written anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message

from shared.criu import areas
from shared.criu import criu_pb2 as pb
from shared.criu.images import ImageDirectory, Kind
from shared.judge import tasks
from shared.judge.memory import files_written_by_mappings
from shared.judge.processes import process_refusals
from tests.support.checkpoints import PAGE, SyntheticDump, core_of_task, core_of_thread
from tests.support.judged import Written, judged
from tests.support.pods import InMemory, Security, read, synthetic_dump

Change = Callable[[SyntheticDump], None]
MINE = (
    "PstreeEntry", "CoreEntry", "TaskCoreEntry", "TaskKobjIdsEntry", "ThreadSasEntry", "ThreadCoreEntry",
    "TaskRlimitsEntry", "CpuinfoEntry", "CpuinfoX86Entry", "CpuinfoPpc64Entry", "CpuinfoS390Entry", "CredsEntry",
    "FsEntry", "AioRingEntry", "MmEntry", "VmaEntry", "PagemapHead", "PagemapEntry", "RlimitEntry", "RseqEntry",
    "SaEntry", "SeccompFilter", "SeccompEntry", "SiginfoEntry", "SignalQueueEntry", "ItimerEntry", "PosixTimerEntry",
    "TaskTimersEntry", "ThreadInfoX86", "ThreadInfoArm", "ThreadInfoAarch64", "ThreadInfoPpc64", "ThreadInfoS390",
    "ThreadInfoMips", "ThreadInfoLoongarch64", "ThreadInfoRiscv64",
)  # fmt: skip
SIGNAL = (10).to_bytes(4, "little") + bytes(124)


def dump_of(*changes: Change, processes: int = 2) -> SyntheticDump:
    made = synthetic_dump(Security(), processes)
    for change in changes:
        change(made)
    return made


def written(*changes: Change) -> Written:
    found = judged(tasks, dump_of(*changes))
    assert isinstance(found, Written), found
    return found


def refusal(*changes: Change) -> str:
    found = judged(tasks, dump_of(*changes))
    assert not isinstance(found, Written)
    return f"{found.reason}: {found}"


def mm(dump: SyntheticDump, pid: int = 1) -> pb.MmEntry:
    entry = dump.images[f"mm-{pid}.img"][0]
    assert isinstance(entry, pb.MmEntry)
    return entry


def in_core(part: str, **fields: Any) -> Change:
    """Sets fields of a part of the first process's core, as ``tc`` or ``thread_core.creds``."""

    def change(dump: SyntheticDump) -> None:
        message: Any = dump.core(1)
        for name in filter(None, part.split(".")):
            message = getattr(message, name)
        set_fields(message, **fields)

    return change


def set_fields(message: Any, **fields: Any) -> None:
    for key, value in fields.items():
        if isinstance(value, list):
            del getattr(message, key)[:]
            getattr(message, key).extend(value)
        elif isinstance(value, Message):
            getattr(message, key).CopyFrom(value)
        else:
            setattr(message, key, value)


def area(**fields: Any) -> Change:
    """One more area behind the process's own, anonymous where nothing else is said."""

    def change(dump: SyntheticDump) -> None:
        usual = {"start": 0x500000, "end": 0x500000 + PAGE, "pgoff": 0, "shmid": 0, "prot": 3, "flags": 0x22}
        mm(dump).vmas.append(pb.VmaEntry(**(usual | {"status": 0x201, "fd": -1} | fields)))

    return change


def both(*changes: Change) -> Change:
    def change(dump: SyntheticDump) -> None:
        for each in changes:
            each(dump)

    return change


def in_area(**fields: Any) -> Change:
    return lambda dump: set_fields(mm(dump).vmas[0], **fields)


def tree(number: int, **fields: Any) -> Change:
    return lambda dump: set_fields(dump.images["pstree.img"][number], **fields)


def thread(*filters: int | None, flags: tuple[int, ...] = (1,)) -> Change:
    """More threads of the first process; the filters of all its threads, the leader first."""

    def change(dump: SyntheticDump) -> None:
        code = bytes.fromhex("0600000001000500")
        made = [pb.SeccompFilter(filter=code, flags=each) for each in flags]
        for number in range(1, len(made)):
            made[number].prev = number - 1
        dump.images["seccomp.img"] = [pb.SeccompEntry(seccomp_filters=made)]
        entry = dump.images["pstree.img"][0]
        assert isinstance(entry, pb.PstreeEntry)
        for number, last in enumerate(filters):
            if number:
                entry.threads.append(70 + number)
                dump.images[f"core-{70 + number}.img"] = [core_of_thread()]
            if last is not None:
                core = dump.core(70 + number if number else 1)
                core.thread_core.seccomp_mode, core.thread_core.seccomp_filter = 2, last

    return change


def pages(*entries: pb.PagemapEntry) -> Change:
    def change(dump: SyntheticDump) -> None:
        dump.images["pagemap-1.img"][1:] = entries
        size = sum((entry.nr_pages or entry.compat_nr_pages) for entry in entries if entry.nr_pages < 1 << 20)
        dump.raw["pages-1.img"] = bytes(size * PAGE)

    return change


def shared_file(**fields: Any) -> Change:
    return area(**({"status": areas.REGULAR | areas.FILE_SHARED, "flags": 1, "shmid": 1} | fields))


def timers(*numbers: int, **fields: Any) -> Change:
    def change(dump: SyntheticDump) -> None:
        dump.core(1).tc.timers.posix.extend(pb.PosixTimerEntry(it_id=each, **fields) for each in numbers)

    return change


def filters(dump: SyntheticDump) -> Any:
    entry: Any = dump.images["seccomp.img"][0]
    return entry.seccomp_filters


def file(dump: SyntheticDump, number: int) -> Any:
    return dump.images["files.img"][number]


def zombie(dump: SyntheticDump) -> None:
    core = core_of_task()
    core.tc.task_state = 2
    dump.images["core-2.img"] = [core]


def test_every_field_has_a_rule() -> None:
    for name, rules in tasks.FIELDS.items():
        fields = {field.name for field in getattr(pb, name).DESCRIPTOR.fields}
        assert fields == set(rules), name
    assert set(MINE) <= set(tasks.FIELDS)


def test_ordinary_dump_is_written_as_it_was() -> None:
    dump = dump_of()
    found = judged(tasks, dump)
    assert isinstance(found, Written)
    files = dump.files("")
    same = {name for name, content in found.files.items() if files[name] == content}
    # Without cgroups, which are the runtime's, and in the host names' namespace that CRIU is in, the pod's.
    assert set(found.files) - same == {"core-1.img", "core-2.img", "ids-1.img", "ids-2.img"}
    assert {"pstree.img", "mm-1.img", "pagemap-2.img", "pages-1.img", "fs-1.img", "seccomp.img"} <= same


def test_restore_sets_no_host_name_and_every_other_namespace_stays_the_dumps() -> None:
    dump = dump_of()
    found = judged(tasks, dump)
    assert isinstance(found, Written)
    for pid in (1, 2):
        (ids,) = found.messages(Kind.IDS, pb.TaskKobjIdsEntry, pid)
        assert ids.uts_ns_id not in (dump.ids(pid).uts_ns_id, dump.inventory().root_ids.uts_ns_id)
        for field in ("pid_ns_id", "net_ns_id", "mnt_ns_id"):
            assert getattr(ids, field) == getattr(dump.ids(pid), field)


def test_what_no_process_has_is_not_written() -> None:
    def change(dump: SyntheticDump) -> None:
        dump.images["core-99.img"] = [core_of_task()]
        dump.images["pagemap-shmem-9.img"] = [pb.PagemapHead(pages_id=9)]

    assert not {"core-99.img", "pagemap-shmem-9.img"} & set(written(change).files)


def test_ended_process_keeps_only_its_name_and_exit_code() -> None:
    found = written(zombie)
    (core,) = found.messages(Kind.CORE, pb.CoreEntry, 2)
    assert (core.tc.comm, core.tc.task_state) == (b"app", 2)
    assert [field.name for field, _ in core.ListFields()] == ["mtype", "tc"]
    assert not {"ids-2.img", "fs-2.img", "mm-2.img"} & set(found.files)


def test_number_that_criu_does_not_set_for_a_zombie_is_not_kept() -> None:
    (_, entry) = written(zombie, tree(1, threads=[1886072880])).messages(Kind.PSTREE, pb.PstreeEntry)
    assert list(entry.threads) == [2]


def test_login_of_the_checkpoint_is_left_out() -> None:
    (core,) = written(in_core("tc", loginuid=0)).messages(Kind.CORE, pb.CoreEntry, 1)
    assert not core.tc.HasField("loginuid")


def test_process_without_groups_gets_its_own_group_instead_of_those_of_criu() -> None:
    found = written(in_core("thread_core.creds", groups=[], egid=7))
    (core,) = found.messages(Kind.CORE, pb.CoreEntry, 1)
    assert list(core.thread_core.creds.groups) == [7]


def test_processes_and_threads_stay_in_the_cgroup_of_the_runtime() -> None:
    def change(dump: SyntheticDump) -> None:
        dump.core(71).thread_core.cg_set = 9

    found = written(thread(None, None), change)
    for number in (1, 71):
        (core,) = found.messages(Kind.CORE, pb.CoreEntry, number)
        assert not core.thread_core.cg_set
        assert not core.tc.cg_set


def test_private_mapping_of_a_file_open_for_writing_is_opened_for_reading() -> None:
    private = area(status=areas.REGULAR | areas.FILE_PRIVATE, flags=2, shmid=1, fdflags=2)
    (entry,) = written(private).messages(Kind.MM, pb.MmEntry, 1)
    assert entry.vmas[1].fdflags == 0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"fdflags": 2, "prot": 1}, {("reg", 1)}),
        ({"prot": 3}, {("reg", 1)}),
        ({"fdflags": 0, "prot": 1}, set()),
        ({"status": areas.REGULAR | areas.FILE_PRIVATE, "flags": 2, "fdflags": 2}, set()),
    ],
)
def test_file_mapped_shared_may_be_written(fields: dict[str, int], expected: set[tuple[str, int]]) -> None:
    made = dump_of(shared_file(**fields))
    images = ImageDirectory(InMemory(made.files()), "checkpoint")
    assert files_written_by_mappings(images, read(made)) == expected


@pytest.mark.parametrize(("pid_max", "reasons"), [(32768, []), (2, []), (1, ["FieldExceeds"])])
def test_numbers_of_processes_stay_within_the_nodes(pid_max: int, reasons: list[str]) -> None:
    assert [refused.reason for refused in process_refusals(read(dump_of()), pid_max)] == reasons


def test_guard_regions_follow_the_areas_they_lie_in() -> None:
    guard = area(status=areas.GUARD, start=0x400000, end=0x400000 + PAGE, flags=0, prot=0)
    (entry,) = written(guard).messages(Kind.MM, pb.MmEntry, 1)
    assert entry.vmas[1].status == areas.GUARD


@pytest.mark.parametrize(
    "change",
    [
        in_core("tc", signals_s=pb.SignalQueueEntry(signals=[pb.SiginfoEntry(siginfo=SIGNAL)])),
        in_core("tc", loginuid=0xFFFFFFFF, stop_signo=20, membarrier_registration_mask=0x154),
        in_core("thread_core", sched_policy=0x40000003, sched_nice=19, pdeath_sig=15),
        timers(0, 1, clock_id=1),
        timers(0, clock_id=0xFFFFFFFA),
        thread(0, None, None),
        thread(1, None, flags=(1, 3)),
        thread(0, 0, flags=(0,)),
        thread(0, None, flags=(0,)),
        area(status=areas.ANON_PRIVATE | areas.VSYSCALL, start=0xFFFFFFFFFF600000, end=0xFFFFFFFFFF601000, prot=4),
        area(flags=0x4028, madv=0x50000),
        area(status=0x1201),
        area(status=areas.REGULAR | areas.ANON_SHARED, flags=0x21, shmid=12345, fdflags=2),
        area(status=areas.REGULAR | areas.ANON_SHARED | areas.SYSV_IPC, flags=0x21, fdflags=2),
        shared_file(fdflags=2),
        shared_file(fdflags=0, prot=1),
        pages(pb.PagemapEntry(vaddr=0x400000, compat_nr_pages=0, nr_pages=2, flags=6)),
    ],
)
def test_what_an_ordinary_process_may_have_passes(change: Change) -> None:
    written(change)


def test_page_map_as_older_criu_writes_it_passes() -> None:
    found = judged(tasks, dump_of(pages(pb.PagemapEntry(vaddr=0x400000, compat_nr_pages=2)), processes=1))
    assert isinstance(found, Written), found


def aio(dump: SyntheticDump, size: int = PAGE) -> None:
    area(status=areas.AIO_RING, flags=1)(dump)
    mm(dump).aios.append(pb.AioRingEntry(id=0x500000, nr_req=8, ring_len=size))


def test_aio_ring_is_an_area_of_its_own() -> None:
    written(aio)
    assert "AioRingEntry.id" in refusal(lambda dump: aio(dump, 2 * PAGE))
    assert "AIO ring" in refusal(area(status=areas.AIO_RING, flags=1))


def test_aio_ring_of_a_process_with_another_root_is_refused() -> None:
    def elsewhere(dump: SyntheticDump) -> None:
        reg = pb.RegFileEntry(id=9, name=b"/srv", mnt_id=147, mode=0o040755)
        dump.images["files.img"].append(pb.FileEntry(type=1, id=9, reg=reg))
        set_fields(dump.images["fs-1.img"][0], root_id=9)

    written(elsewhere)
    assert "another root" in refusal(aio, elsewhere)


REFUSED: dict[str, tuple[Change, str]] = {
    "pid above all": (
        both(tree(1, pid=1 << 23, threads=[1 << 23]), lambda dump: renumber(dump, 2, 1 << 23)),
        "PstreeEntry.pid",
    ),
    "group of a thread": (both(thread(None, None), tree(1, pgid=71)), "PstreeEntry.pgid"),
    "no group": (tree(1, pgid=0), "PstreeEntry.pgid"),
    "no session": (tree(1, sid=0), "PstreeEntry.sid"),
    "first process in another session": (tree(0, sid=44), "PstreeEntry.sid"),
    "first process in another group": (tree(0, pgid=44), "PstreeEntry.sid"),
    "group of a process that leads none": (
        both(tree(1, pgid=3), tree(2, pgid=2)),
        "PstreeEntry.pgid",
    ),
    "child of an ended process": (
        both(zombie, tree(2, ppid=2)),
        "PstreeEntry.ppid",
    ),
    "no registers": (lambda dump: dump.core(1).ClearField("thread_info"), "no registers of x86_64"),
    "registers of another processor": (
        in_core("", ti_riscv64=pb.ThreadInfoRiscv64()),
        "registers of another processor",
    ),
    "few registers": (in_core("thread_info.fpregs", xmm_space=[0] * 63), "UserX86FpregsEntry.xmm_space"),
    "many registers": (in_core("thread_info.fpregs.xsave", ymmh_space=[0] * 65), "UserX86XsaveEntry.ymmh_space"),
    "register mode": (in_core("thread_info.gpregs", mode=3), "UserX86RegsEntry.mode"),
    "shadow stack features": (in_core("thread_info.fpregs.xsave.cet", cet=8), "UserX86CetEntry.cet"),
    "descriptors of a thread": (in_core("thread_info", tls=[pb.UserDescT()]), "ThreadInfoX86.tls"),
    "ids in the core": (in_core("", ids=pb.TaskKobjIdsEntry()), "CoreEntry.ids"),
    "few handlers": (in_core("tc", sigactions=[pb.SaEntry()]), "TaskCoreEntry.sigactions"),
    "no timers": (lambda dump: dump.core(1).tc.ClearField("timers"), "lacks timers"),
    "no queue": (lambda dump: dump.core(1).tc.ClearField("signals_s"), "lacks signals_s"),
    "no queue of a thread": (lambda dump: dump.core(1).thread_core.ClearField("signals_p"), "lacks signals_p"),
    "process part of a thread": (
        both(thread(None, None), lambda dump: dump.core(71).tc.CopyFrom(dump.core(1).tc)),
        "CoreEntry.tc",
    ),
    "short signal": (
        in_core("tc", signals_s=pb.SignalQueueEntry(signals=[pb.SiginfoEntry(siginfo=SIGNAL[:127])])),
        "SiginfoEntry.siginfo",
    ),
    "signal that cannot wait": (
        in_core("thread_core", signals_p=pb.SignalQueueEntry(signals=[pb.SiginfoEntry(siginfo=b"\x13" + bytes(127))])),
        "SiginfoEntry.siginfo",
    ),
    "stop signal": (in_core("tc", stop_signo=9), "TaskCoreEntry.stop_signo"),
    "barrier": (in_core("tc", membarrier_registration_mask=1), "TaskCoreEntry.membarrier_registration_mask"),
    "oom score": (in_core("tc", oom_score_adj=-1001), "TaskCoreEntry.oom_score_adj"),
    "robust list": (in_core("thread_core", futex_rla_len=25), "ThreadCoreEntry.futex_rla_len"),
    "nice": (in_core("thread_core", sched_nice=20), "ThreadCoreEntry.sched_nice"),
    "policy": (in_core("thread_core", sched_policy=6), "ThreadCoreEntry.sched_policy"),
    "priority": (in_core("thread_core", sched_prio=100), "ThreadCoreEntry.sched_prio"),
    "signal of a parent's death": (in_core("thread_core", pdeath_sig=65), "ThreadCoreEntry.pdeath_sig"),
    "seccomp mode": (in_core("thread_core", seccomp_mode=3), "ThreadCoreEntry.seccomp_mode"),
    "umask": (lambda dump: set_fields(dump.images["fs-1.img"][0], umask=0o1000), "FsEntry.umask"),
    "working directory": (lambda dump: set_fields(dump.images["fs-1.img"][0], cwd_id=1), "working directory"),
    "root directory": (lambda dump: set_fields(dump.images["fs-1.img"][0], root_id=99), "root directory"),
    "securebits": (in_core("thread_core.creds", secbits=1 << 12), "CredsEntry.secbits"),
    "new privileges": (in_core("thread_core.creds", no_new_privs=2), "CredsEntry.no_new_privs"),
    "label of sockets": (in_core("thread_core.creds", lsm_sockcreate=b"x"), "CredsEntry.lsm_sockcreate"),
    "profiles": (in_core("thread_core.creds", apparmor_data=b"x"), "CredsEntry.apparmor_data"),
    "capability words": (in_core("thread_core.creds", cap_bnd=[1]), "capability set of 1 words"),
    "filter with a listener": (thread(0, flags=(8,)), "SeccompFilter.flags"),
    "filter that weakens": (thread(0, flags=(4,)), "SeccompFilter.flags"),
    "filter too long": (
        both(thread(0), lambda dump: set_fields(filters(dump)[0], filter=bytes(8 * 4097))),
        "SeccompFilter.filter",
    ),
    "shared filter beside another one": (thread(0, 1, flags=(1, 0)), "marks a filter"),
    "shared filter of a thread that does not lead": (thread(None, 0), "marks a filter"),
    "filters shared in part": (thread(1, None, flags=(1, 0)), "marks a filter"),
    "timer twice": (timers(3, 3, clock_id=1), "PosixTimerEntry.it_id"),
    "timer far up": (timers(10_000_001, clock_id=1), "PosixTimerEntry.it_id"),
    "clock": (timers(1, clock_id=10), "PosixTimerEntry.clock_id"),
    "clock of a file": (timers(1, clock_id=0xFFFFFFE3), "PosixTimerEntry.clock_id"),
    "notification": (timers(1, clock_id=1, it_sigev_notify=3), "PosixTimerEntry.it_sigev_notify"),
    "dumpable": (lambda dump: set_fields(mm(dump), dumpable=3), "MmEntry.dumpable"),
    "no executable": (lambda dump: set_fields(mm(dump), exe_file_id=99), "names an executable"),
    "executable that is a directory": (lambda dump: set_fields(mm(dump), exe_file_id=5), "names an executable"),
    "executable open for writing": (
        lambda dump: set_fields(file(dump, 0).reg, flags=2),
        "open for writing",
    ),
    "no area": (lambda dump: set_fields(mm(dump), vmas=[]), "has no memory area"),
    "areas overlap": (area(start=0x400000, end=0x403000), "VmaEntry.start"),
    "areas out of order": (area(start=0x300000, end=0x301000), "VmaEntry.start"),
    "area not aligned": (area(start=0x500001), "VmaEntry.start"),
    "area without end": (area(end=0x500000), "VmaEntry.start"),
    "area above all": (area(start=1 << 57, end=(1 << 57) + PAGE), "VmaEntry.end"),
    "area at the vsyscall page": (area(start=0xFFFFFFFFFF600000, end=0xFFFFFFFFFF601000), "VmaEntry.end"),
    "area behind a guard region": (
        both(area(status=areas.GUARD, flags=0, prot=0), area(start=0x600000, end=0x601000)),
        "VmaEntry.start",
    ),
    "guard region with flags": (area(status=areas.GUARD, prot=0), "VmaEntry.flags"),
    "two kinds": (in_area(status=areas.REGULAR | areas.ANON_PRIVATE | areas.FILE_PRIVATE), "VmaEntry.status"),
    "no kind": (in_area(status=areas.REGULAR), "VmaEntry.status"),
    "not mapped": (in_area(status=areas.ANON_PRIVATE), "VmaEntry.status"),
    "premapped": (in_area(status=0x201 | 1 << 30), "VmaEntry.status"),
    "plugin": (in_area(status=0x201 | 1 << 27), "VmaEntry.status"),
    "uprobes": (in_area(status=0x201 | areas.UPROBES), "VmaEntry.status"),
    "segment without shared memory": (in_area(status=0x201 | areas.SYSV_IPC), "VmaEntry.status"),
    "descriptor": (in_area(fd=3), "VmaEntry.fd"),
    "not anonymous": (in_area(flags=2), "VmaEntry.flags"),
    "shared and private": (in_area(flags=0x21), "VmaEntry.flags"),
    "flag of mmap": (in_area(flags=0x22 | 0x8000), "VmaEntry.flags"),
    "anonymous file": (shared_file(flags=0x21), "VmaEntry.flags"),
    "protection": (in_area(prot=8), "VmaEntry.prot"),
    "offset": (in_area(pgoff=5), "VmaEntry.pgoff"),
    "advice that removes": (in_area(madv=1 << 9), "VmaEntry.madv"),
    "truncated file": (shared_file(fdflags=0o1002), "VmaEntry.fdflags"),
    "created file": (shared_file(fdflags=0o102), "VmaEntry.fdflags"),
    "file for writing only": (shared_file(fdflags=1), "VmaEntry.fdflags"),
    "missing file": (shared_file(shmid=99), "files.img does not have"),
    "file that is a pipe": (shared_file(shmid=3), "files.img does not have"),
    "memfd that is a file": (
        shared_file(status=areas.REGULAR | areas.FILE_SHARED | areas.MEMFD),
        "files.img does not have",
    ),
    "pages outside": (pages(pb.PagemapEntry(vaddr=0x402000, compat_nr_pages=1)), "no memory of its own"),
    "pages across the end": (pages(pb.PagemapEntry(vaddr=0x401000, compat_nr_pages=2)), "no memory of its own"),
    "two counts": (pages(pb.PagemapEntry(vaddr=0x400000, compat_nr_pages=1, nr_pages=2, flags=4)), "two counts"),
    "page flags": (pages(pb.PagemapEntry(vaddr=0x400000, compat_nr_pages=2, flags=12)), "the flags 0xc"),
    "pages around the end of all": (
        pages(pb.PagemapEntry(vaddr=0x400000, compat_nr_pages=0, nr_pages=1 << 52, flags=4)),
        "out of order",
    ),
}


def renumber(dump: SyntheticDump, old: int, new: int) -> None:
    for kind in ("core", "ids", "fs", "mm", "pagemap"):
        dump.images[f"{kind}-{new}.img"] = dump.images.pop(f"{kind}-{old}.img")


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_checkpoint_has_is_refused(name: str) -> None:
    change, words = REFUSED[name]
    found = judged(tasks, dump_of(change, processes=3))
    assert not isinstance(found, Written)
    assert words in str(found)


def test_page_map_that_is_not_as_criu_writes_it_is_refused() -> None:
    def change(dump: SyntheticDump) -> None:
        odd = b"\x10\x02\x08\x80\x80\x80\x02"  # the fields in another order
        del dump.images["pagemap-1.img"][1:]
        start = dump.files("")["pagemap-1.img"]
        del dump.images["pagemap-1.img"]
        dump.raw["pagemap-1.img"] = start + len(odd).to_bytes(4, "little") + odd

    assert "ImageDamaged" in refusal(change)
