"""What CRIU's restorer writes by addresses of the checkpoint: only ever the process's own memory."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.criu import areas
from shared.criu import criu_pb2 as pb
from shared.criu.vdso import vdso_flaw
from shared.judge import tasks
from tests.support.checkpoints import PAGE, SyntheticDump
from tests.support.judged import Written, judged
from tests.support.pods import Security, synthetic_dump
from tests.support.vdso import made_vdso

Change = Callable[[SyntheticDump], None]
START, RESTORER = 0x400000, 0x10000
CODE = START


def outcome(*changes: Change) -> str:
    made = synthetic_dump(Security(), 1)
    for change in changes:
        change(made)
    found = judged(tasks, made)
    return "written" if isinstance(found, Written) else f"{found.reason}: {found}"


def mm(dump: SyntheticDump) -> Any:
    return dump.images["mm-1.img"][0]


def memory(
    content: bytes, start: int = START, status: int = areas.REGULAR | areas.ANON_PRIVATE, **fields: int
) -> Change:
    """The process has this area alone, with this content."""

    def change(dump: SyntheticDump) -> None:
        padded = content + bytes(-len(content) % PAGE)
        usual: dict[str, Any] = {"pgoff": 0, "shmid": 0, "prot": 3, "flags": 0x22, "fd": -1}
        area = pb.VmaEntry(start=start, end=start + len(padded), status=status, **(usual | fields))
        del mm(dump).vmas[:]
        mm(dump).vmas.append(area)
        dump.images["pagemap-1.img"][1:] = [
            pb.PagemapEntry(vaddr=start, compat_nr_pages=0, flags=4, nr_pages=len(padded) // PAGE)
        ]
        dump.raw["pages-1.img"] = padded

    return change


def rseq(pointer: int, size: int = 32) -> Change:
    def change(dump: SyntheticDump) -> None:
        entry = pb.RseqEntry(rseq_abi_pointer=pointer, rseq_abi_size=size, signature=1)
        dump.core(1).thread_core.rseq_entry.CopyFrom(entry)

    return change


def not_dumped(dump: SyntheticDump) -> None:
    del dump.images["pagemap-1.img"][1:]
    del dump.raw["pages-1.img"]


def naming(sequence: int, start: int = 0, length: int = 0) -> bytes:
    """Memory whose first area of restartable sequences names ``sequence``, and a sequence at its offset 64."""
    return bytes(8) + struct.pack("<Q", sequence) + bytes(48) + struct.pack("<QQQQ", 0, start, length, START)


@pytest.mark.parametrize(
    ("pointer", "size", "accepted"),
    [
        (START, 32, True),
        (START + PAGE - 32, 32, True),
        (START, 4096, True),
        (0, 0, True),
        (RESTORER, 32, False),
        (START - 32, 32, False),
        (START + PAGE, 32, False),
        (START + PAGE - 32, 64, False),
        (START + 8, 32, False),
        (START, 1 << 20, False),
        ((1 << 64) - 32, 32, False),
    ],
)
def test_area_of_restartable_sequences_is_the_processs_own_memory(pointer: int, size: int, accepted: bool) -> None:
    found = outcome(memory(bytes(PAGE)), rseq(pointer, size))
    assert found.startswith("written" if accepted else "FieldExceeds: checkpoint/core-1.img"), found


@pytest.mark.parametrize(
    "status",
    [
        areas.REGULAR | areas.ANON_SHARED,
        areas.REGULAR | areas.FILE_SHARED,
        areas.REGULAR | areas.ANON_PRIVATE | areas.VVAR,
    ],
)
def test_area_of_restartable_sequences_is_private(status: int) -> None:
    """Another container of the pod could write to shared memory while CRIU has root's rights."""
    shared = not status & areas.ANON_PRIVATE
    flags = 0x22 if not shared else 1 if status & areas.FILE_SHARED else 0x21
    found = outcome(memory(bytes(PAGE), status=status, flags=flags, shmid=1), not_dumped, rseq(START))
    assert found.startswith("FieldExceeds: checkpoint/core-1.img"), found


@pytest.mark.parametrize(
    ("content", "accepted"),
    [
        (naming(START + 64, CODE, 64), True),
        (naming(START + 64, START + PAGE - 8, 8), True),
        (naming(START + 64, RESTORER, 0x20000), False),
        (naming(START + 64, START, PAGE + 1), False),
        (naming(START + 64, START, (1 << 64) - 1), False),
        (naming(RESTORER), False),
        (naming(START + PAGE - 8), False),
    ],
)
def test_sequence_that_is_named_lies_in_the_processs_own_memory(content: bytes, accepted: bool) -> None:
    found = outcome(memory(content), rseq(START))
    assert found.startswith("written" if accepted else "ImageDamaged: "), found


def test_area_of_restartable_sequences_that_was_never_written_names_none() -> None:
    assert outcome(memory(bytes(PAGE)), not_dumped, rseq(START)) == "written"


def test_area_of_restartable_sequences_is_not_what_a_file_has_by_then() -> None:
    status = areas.REGULAR | areas.FILE_PRIVATE
    found = outcome(memory(bytes(PAGE), status=status, flags=2, shmid=1), not_dumped, rseq(START))
    assert "does not have what process 1 was doing" in found


def test_pages_that_lie_in_several_runs_are_found() -> None:
    def change(dump: SyntheticDump) -> None:
        memory(bytes(2 * PAGE) + naming(START + 2 * PAGE + 64, RESTORER, 1))(dump)
        runs = [pb.PagemapEntry(vaddr=START + n * PAGE, compat_nr_pages=0, flags=4, nr_pages=1) for n in range(3)]
        dump.images["pagemap-1.img"][1:] = runs

    assert "restartable sequence of process 1 at 0x10000" in outcome(change, rseq(START + 2 * PAGE))
    assert outcome(change, rseq(START + PAGE)) == "written"


def test_all_runs_count_alike_or_older_criu_would_restore_other_pages_than_were_looked_at() -> None:
    def change(dump: SyntheticDump) -> None:
        memory(bytes(PAGE) + naming(START + 64, START, 1))(dump)
        dump.images["pagemap-1.img"][1:] = [
            pb.PagemapEntry(vaddr=START, compat_nr_pages=1),
            # CRIU before 4.2 takes it for empty, and has the pages behind it begin here.
            pb.PagemapEntry(vaddr=START + PAGE, compat_nr_pages=0, flags=4, nr_pages=1),
        ]

    assert "counts some pages in 32 bits and others in 64" in outcome(change, rseq(START))


def test_page_maps_of_all_processes_count_alike() -> None:
    made = synthetic_dump(Security(), 2)
    made.images["pagemap-1.img"][1:] = [pb.PagemapEntry(vaddr=START, compat_nr_pages=2)]
    made.images["pagemap-2.img"][1:] = [pb.PagemapEntry(vaddr=START, compat_nr_pages=0, flags=4, nr_pages=2)]
    made.raw["pages-1.img"] = made.raw["pages-2.img"] = bytes(2 * PAGE)
    found = judged(tasks, made)
    assert not isinstance(found, Written)
    assert "checkpoint/pagemap-1.img counts some pages in 32 bits" in str(found)


VDSO = areas.REGULAR | areas.ANON_PRIVATE | areas.VDSO


@pytest.mark.parametrize(
    ("fields", "flaw"),
    [
        ({}, None),
        ({"value": 0x1FE0}, None),
        ({"value": 0x1FE1}, "has a function at 0x1fe1"),
        ({"value": (RESTORER - START) % (1 << 64)}, "has a function at"),
        ({"value": 0x2000}, "has a function at 0x2000"),
        ({"base": 1 << 20}, "has its names elsewhere"),
        ({"base": 1 << 20, "shift": 1 << 20}, "has a function at 0x900"),
        ({"base": 1 << 20, "shift": 1 << 20, "value": (1 << 20) + 0x900}, None),
        ({"chain": 1}, "in which CRIU would search for ever"),
        ({"buckets": 0}, "in which CRIU would search for ever"),
        ({"buckets": 1 << 31}, "in which CRIU would search for ever"),
        ({"chains": 1 << 31}, "in which CRIU would search for ever"),
        ({"magic": b"ELF!"}, "is no ELF file"),
        ({"headers": 0}, "that CRIU could read"),
        ({"symbols": 1 << 40}, "has its names elsewhere"),
    ],
)
@pytest.mark.parametrize("word", [4, 8])
def test_functions_of_a_vdso_lie_in_it(word: int, fields: dict[str, Any], flaw: str | None) -> None:
    if word == 4 and any(isinstance(value, int) and value >= 1 << 32 for value in fields.values()):
        pytest.skip("no number of 32 bits")
    content = made_vdso(word, **fields)
    found = vdso_flaw(content)
    assert found is None if flaw is None else flaw in str(found)
    judged_as = outcome(memory(content, start=0x7FFF0000, status=VDSO, prot=5))
    assert (judged_as == "written") == (flaw is None), judged_as


def test_vdso_that_was_not_dumped_is_none() -> None:
    assert "vdso of process 1 that was not dumped" in outcome(memory(made_vdso(8), status=VDSO), not_dumped)


def test_vdso_of_this_machine_has_no_flaw() -> None:
    maps = Path("/proc/self/maps").read_text(encoding="ascii").splitlines()
    place = next((line.split()[0] for line in maps if "[vdso]" in line), None)
    if place is None:
        pytest.skip("this kernel gives processes no vdso")
    start, end = (int(number, 16) for number in place.split("-"))
    with Path("/proc/self/mem").open("rb") as own:
        own.seek(start)
        assert vdso_flaw(own.read(end - start)) is None


def test_huge_vdso_is_refused_before_it_is_read() -> None:
    assert "a process has one vdso, of a few pages" in outcome(memory(bytes(2 << 20), status=VDSO))


def test_process_has_one_vdso() -> None:
    def change(dump: SyntheticDump) -> None:
        other = {"pgoff": 0, "shmid": 0, "prot": 5, "flags": 0x22, "fd": -1, "status": VDSO}
        mm(dump).vmas.append(pb.VmaEntry(start=0x900000, end=0x900000 + PAGE, **other))

    assert "a process has one vdso, of a few pages" in outcome(memory(made_vdso(), status=VDSO), change)


def test_dump_has_few_kinds_of_vdso() -> None:
    """Each is work for the worker."""

    def dump_with(kinds: int) -> str:
        made = synthetic_dump(Security(), 6)
        for pid in range(1, 7):
            content = made_vdso(value=0x900 + 16 * (pid % kinds))
            area = {"pgoff": 0, "shmid": 0, "prot": 5, "flags": 0x22, "fd": -1, "status": VDSO}
            entry: Any = made.images[f"mm-{pid}.img"][0]
            del entry.vmas[:]
            entry.vmas.append(pb.VmaEntry(start=START, end=START + len(content), **area))
            made.images[f"pagemap-{pid}.img"][1:] = [
                pb.PagemapEntry(vaddr=START, compat_nr_pages=0, flags=4, nr_pages=2)
            ]
            made.raw[f"pages-{pid}.img"] = content
        found = judged(tasks, made)
        return "written" if isinstance(found, Written) else str(found)

    assert dump_with(4) == "written"
    assert "one more kind of vdso than the 4" in dump_with(5)


def test_chains_that_share_symbols_cost_no_more_than_the_vdso_is_long() -> None:
    content = bytearray(128 << 10)
    content[: len(made_vdso())] = made_vdso()
    start, count = 0x600 + 0x100, 8000  # a table of names of its own, every bucket of which begins the longest chain
    struct.pack_into("<Q", content, 0x600 + 2 * 16 + 8, start)
    chain = [*range(1, count), 0]
    struct.pack_into(f"<{2 + 2 * count}I", content, start, count, count, *([1] * count), *[0, *chain[1:], 0][:count])
    began = time.monotonic()
    assert "search for ever" in str(vdso_flaw(bytes(content)))
    assert time.monotonic() - began < 1


def guard(start: int, end: int) -> Change:
    def change(dump: SyntheticDump) -> None:
        area = {"pgoff": 0, "shmid": 0, "prot": 0, "flags": 0, "fd": -1, "status": areas.GUARD}
        mm(dump).vmas.append(pb.VmaEntry(start=start, end=end, **area))

    return change


@pytest.mark.parametrize(
    ("start", "end", "accepted"),
    [
        (START, START + PAGE, True),
        (START + PAGE, START + 2 * PAGE, True),
        (RESTORER, RESTORER + PAGE, False),
        (START - PAGE, START + PAGE, False),
        (START + PAGE, START + 3 * PAGE, False),
    ],
)
def test_guard_region_lies_in_areas(start: int, end: int, accepted: bool) -> None:
    found = outcome(memory(bytes(2 * PAGE)), guard(start, end))
    assert found.startswith("written" if accepted else "FieldExceeds: checkpoint/mm-1.img"), found


HUGE = 0x40022 | 21 << 26


@pytest.mark.parametrize(
    ("start", "size", "flags", "accepted"),
    [
        (2 << 20, 2 << 20, HUGE, True),
        (2 << 20, PAGE, HUGE, False),
        ((2 << 20) + PAGE, 2 << 20, HUGE, False),
        (2 << 20, 2 << 20, 0x40022, False),
        (2 << 20, 2 << 20, 0x40022 | 30 << 26, False),
    ],
)
def test_area_of_huge_pages_has_whole_ones(start: int, size: int, flags: int, accepted: bool) -> None:
    found = outcome(memory(bytes(size), start=start, flags=flags))
    assert found.startswith("written" if accepted else "FieldExceeds: checkpoint/mm-1.img"), found


def test_segment_has_huge_pages_wherever_it_is_shown() -> None:
    def change(dump: SyntheticDump) -> None:
        shown = {"pgoff": 0, "shmid": 9, "prot": 3, "fd": -1, "status": areas.REGULAR | areas.ANON_SHARED}
        mm(dump).vmas.append(pb.VmaEntry(start=2 << 21, end=3 << 21, flags=0x40021 | 21 << 26, **shown))
        mm(dump).vmas.append(pb.VmaEntry(start=3 << 21, end=(3 << 21) + PAGE, flags=0x21, **shown))

    found = outcome(memory(bytes(PAGE), start=0x20000), change)
    assert found.startswith("FieldExceeds: checkpoint/mm-1.img has 0x601000 for VmaEntry.end"), found


@pytest.mark.parametrize("signal", [9, 18, 25])
def test_no_timer_wakes_or_kills_what_is_stopped(signal: int) -> None:
    def change(dump: SyntheticDump) -> None:
        numbers = dict.fromkeys(("it_id", "clock_id", "it_sigev_notify", "sival_ptr", "overrun"), 0)
        times = dict.fromkeys(("isec", "insec", "vsec", "vnsec"), 0)
        dump.core(1).tc.timers.posix.append(pb.PosixTimerEntry(si_signo=signal, **numbers, **times))

    assert outcome(change).startswith("FieldExceeds: checkpoint/core-1.img has")


@pytest.mark.parametrize(("signal", "accepted"), [(0, True), (15, True), (9, False), (18, False), (25, False)])
def test_end_of_the_runtime_neither_wakes_nor_kills_the_first_process(signal: int, accepted: bool) -> None:
    def change(dump: SyntheticDump) -> None:
        dump.core(1).thread_core.pdeath_sig = signal

    assert outcome(change).startswith("written" if accepted else "FieldExceeds: checkpoint/core-1.img has")
