"""Addresses at which CRIU's restorer has itself, and signals that end the stop before the pod's limits hold."""

from __future__ import annotations

import struct
from typing import Any, Final

from shared.criu import criu_pb2 as pb
from shared.criu.areas import VDSO
from shared.criu.images import Kind, split
from tests.hostile.attack import Change, add
from tests.hostile.forgery import Forgery

RESTORER: Final = 0x10000
"""The first address that a process may have, where CRIU finds room for the restorer (restorer_get_vma_hint)."""
FILTERS: Final = 0x2B763
"""With CRIU 4.2.1 on x86-64 and one thread, a jump to the vdso written there makes the number of filters zero."""
_TIME: Final = b"\0__vdso_time\0"


def _function_at(target: int) -> Change:
    """The vdso says that time() begins at ``target``, where CRIU would write a jump."""

    def change(forgery: Forgery) -> None:
        area = next(each for each in forgery.image("mm-1.img")[0].vmas if each.status & VDSO)
        name, place = _pages_of(forgery, area.start)
        content = bytearray(forgery.files[name])
        vdso = bytes(content[place : place + area.end - area.start])
        names = vdso.find(b"\0__vdso_")  # the table of names begins with an empty one
        own = vdso.find(_TIME) + 1 - names
        for at in range(0, len(vdso) - 24, 8):
            number, kind, _, _, value = struct.unpack_from("<IBBHQ", vdso, at)
            if number == own and kind & 0xF == 2 and 0 < value < len(vdso):
                struct.pack_into("<Q", content, place + at + 8, (target - area.start) % (1 << 64))
        assert content != forgery.files[name]
        forgery.rewritten.add(name)
        forgery.files[name] = bytes(content)

    return change


def _pages_of(forgery: Forgery, address: int) -> tuple[str, int]:
    """The first process's pages image, and where in it the page of an address is."""
    head, *entries = split(forgery.files["checkpoint/pagemap-1.img"], Kind.PAGEMAP, "pagemap-1.img")
    before = 0
    for piece in entries:
        entry = pb.PagemapEntry.FromString(piece)
        count = entry.nr_pages or entry.compat_nr_pages
        if entry.vaddr <= address < entry.vaddr + count * 4096:
            return (
                f"checkpoint/pages-{pb.PagemapHead.FromString(head).pages_id}.img",
                before * 4096 + address - entry.vaddr,
            )
        before += count
    raise AssertionError(f"{address:#x} was not dumped")


def _thread(**fields: Any) -> Change:
    def change(forgery: Forgery) -> None:
        for name, value in fields.items():
            setattr(forgery.core().thread_core, name, value)

    return change


def _rseq(pointer: int) -> Change:
    def change(forgery: Forgery) -> None:
        entry = pb.RseqEntry(rseq_abi_pointer=pointer, rseq_abi_size=32, signature=0x53053053)
        forgery.core().thread_core.rseq_entry.CopyFrom(entry)

    return change


def _timer(signal: int) -> Change:
    def change(forgery: Forgery) -> None:
        times = {"isec": 0, "insec": 1_000_000, "vsec": 0, "vnsec": 1_000_000}
        timer = pb.PosixTimerEntry(
            it_id=0, clock_id=1, si_signo=signal, it_sigev_notify=0, sival_ptr=0, overrun=0, **times
        )
        forgery.core().tc.timers.posix.append(timer)

    return change


def _guard(forgery: Forgery) -> None:
    area = {"pgoff": 0, "shmid": 0, "prot": 0, "flags": 0, "fd": -1, "status": 1 << 16}
    areas = forgery.image("mm-1.img")[0].vmas
    made = [each for each in areas if each.status != 1 << 16]
    made.append(pb.VmaEntry(start=RESTORER, end=RESTORER + 4096, **area))
    del areas[:]
    areas.extend(made)


for _place, _target in (("number of filters", FILTERS), ("code", RESTORER + 0x100)):
    add(f"a vdso with a function in the restorer's {_place}", "ImageDamaged", _function_at(_target), "restricted")
add("an area of restartable sequences in the restorer's arguments", "FieldExceeds", _rseq(0x2B740), "restricted")
add("a guard region over the restorer", "FieldExceeds", _guard)
for _signal in (9, 18):
    add(
        f"a first process that gets signal {_signal} when the runtime ends", "FieldExceeds", _thread(pdeath_sig=_signal)
    )
    add(f"a timer that sends signal {_signal}", "FieldExceeds", _timer(_signal))
