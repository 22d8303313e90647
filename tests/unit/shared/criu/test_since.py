"""What an older CRIU would read past, and what it would restore the same way without."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.criu import criu_pb2 as pb
from shared.criu.images import ImageDirectory
from shared.criu.since import NEW_FIELDS, newer_than
from tests.support.checkpoints import SyntheticDump
from tests.support.pods import InMemory, read

Change = Callable[[SyntheticDump], None]


def lost(version: tuple[int, int], *changes: Change) -> list[str]:
    made = SyntheticDump.of_processes()
    for entry in made.images["pagemap-1.img"][1:]:
        assert isinstance(entry, pb.PagemapEntry)
        entry.compat_nr_pages = entry.nr_pages
        entry.ClearField("nr_pages")
    for change in changes:
        change(made)
    dump = read(made)
    images = ImageDirectory(InMemory(made.files()), "checkpoint")
    return list(newer_than(images, dump.tasks, version, wide=dump.wide_page_counts))


def no_new_privs(dump: SyntheticDump) -> None:
    dump.core(1).thread_core.creds.no_new_privs = 1


def ambient(dump: SyntheticDump) -> None:
    dump.core(1).thread_core.creds.cap_amb[:] = [1 << 10, 0]


def barrier(dump: SyntheticDump) -> None:
    dump.core(1).tc.membarrier_registration_mask = 16


def shadow_stack(dump: SyntheticDump) -> None:
    dump.core(1).thread_info.fpregs.xsave.cet.cet = 1


def wide_counts(dump: SyntheticDump) -> None:
    dump.images["pagemap-1.img"][1:] = [pb.PagemapEntry(vaddr=0x400000, compat_nr_pages=0, nr_pages=2, flags=4)]


def socket(**options: int) -> Change:
    def change(dump: SyntheticDump) -> None:
        part = pb.InetSkEntry(id=77, family=2, src_addr=[0], dst_addr=[0], ip_opts=pb.IpOptsEntry(**options))
        dump.add_file(pb.FileEntry(type=4, id=77, isk=part), descriptor=9)

    return change


def memfd(mode: int) -> Change:
    def change(dump: SyntheticDump) -> None:
        dump.images["memfd.img"] = [pb.MemfdInodeEntry(name=b"x", mode=mode)]

    return change


@pytest.mark.parametrize(
    ("change", "before", "since", "words"),
    [
        (no_new_privs, (3, 18), (3, 19), "no_new_privs"),
        (ambient, (4, 0), (4, 1), "ambient"),
        (barrier, (3, 18), (3, 19), "membarrier"),
        (shadow_stack, (3, 19), (4, 0), "shadow stacks"),
        (wide_counts, (4, 1), (4, 2), "pages"),
        (socket(pktinfo=1), (3, 17), (3, 18), "IP_PKTINFO"),
        (socket(tos=8), (3, 18), (3, 19), "type of service"),
        (socket(ttl=5), (3, 19), (4, 0), "time to live"),
        (memfd(0o100600), (3, 18), (3, 19), "memfd"),
    ],
)
def test_field_is_lost_on_the_last_release_without_it(
    change: Change, before: tuple[int, int], since: tuple[int, int], words: str
) -> None:
    (found,) = lost(before, change)
    assert words in found
    assert found.endswith(f"(CRIU {since[0]}.{since[1]})")
    assert lost(since, change) == []


@pytest.mark.parametrize("change", [socket(ttl=64), socket(tos=0), memfd(0o100777)])
def test_usual_value_is_no_loss(change: Change) -> None:
    assert lost((3, 17), change) == []


def test_ordinary_dump_loses_nothing() -> None:
    assert lost((3, 17)) == []


def test_every_new_field_is_one_of_the_format() -> None:
    for new in NEW_FIELDS:
        assert new.field in getattr(pb, new.message).DESCRIPTOR.fields_by_name
