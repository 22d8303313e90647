"""A dump that is not whole is refused before CRIU sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.archive import CheckpointFiles, open_checkpoint
from shared.criu.criu_pb2 import (
    FdinfoEntry,
    FsEntry,
    MmEntry,
    PagemapEntry,
    PagemapHead,
    SeccompEntry,
    SeccompFilter,
)
from shared.criu.images import header
from shared.criu.magic import MAGIC
from shared.criu.pagemaps import ADDRESS_MAX
from shared.judge.reading import read
from tests.support.checkpoints import PAGE, SyntheticDump, set_aarch64

Refused = Callable[..., Any]
Dumped = Callable[..., CheckpointFiles]


def test_whole_dump_passes(dumped: Dumped) -> None:
    read(dumped(SyntheticDump.of_processes(3)))
    read(dumped(SyntheticDump.of_processes().files("elsewhere")), directory="elsewhere")


def test_real_checkpoints_pass(sample: Path) -> None:
    with open_checkpoint(sample) as files:
        read(files)


@pytest.mark.parametrize("name", sorted({*SyntheticDump.of_processes().files("")} - {"seccomp.img"}))
def test_missing_file_is_named(name: str, dumped: Dumped, refused: Refused) -> None:
    files = SyntheticDump.of_processes().files()
    del files[f"checkpoint/{name}"]
    with refused("FileMissing", f"checkpoint/{name}"):
        read(dumped(files))


@pytest.mark.parametrize("pattern", MAGIC)
def test_wrong_magic_of_every_kind_of_image_is_named(pattern: str, dumped: Dumped, refused: Refused) -> None:
    name = pattern.replace("%", "1")
    files = SyntheticDump.of_processes().files() | {f"checkpoint/{name}": b"\x19CVT\0\0\0\0"}
    if name.startswith(("creds", "rlimit", "vmas", "sigacts", "itimers", "posix-timers")):
        with refused("ImagesTooOld", name):
            read(dumped(files))
    else:
        with refused("WrongMagic", f"checkpoint/{name}"):
            read(dumped(files))


def test_images_without_magic_are_left_alone(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    dump.raw |= {"tmpfs-dev-65.tar.gz.img": b"x", "iptables-10.img": b"", "ifaddr-10.img": b"y", "unheard-of.img": b"z"}
    read(dumped(dump))


@pytest.mark.parametrize("size", [0, PAGE, 2 * PAGE - 1, 2 * PAGE + 1, 3 * PAGE])
def test_pages_image_of_another_size_is_refused(size: int, dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes(2, pages=2)
    dump.raw["pages-2.img"] = bytes(size)
    with refused("PagesSizeMismatch", "checkpoint/pages-2.img", f"{size} bytes", "2 pages", "pagemap-2.img"):
        read(dumped(dump))


def pagemap(*entries: PagemapEntry, pages_id: int = 1) -> SyntheticDump:
    dump = SyntheticDump.of_processes(pages=2)
    dump.images["pagemap-1.img"] = [PagemapHead(pages_id=pages_id), *entries]
    if ends := [end for each in entries if (end := each.vaddr + 2 * PAGE) <= ADDRESS_MAX]:
        (memory,) = dump.images["mm-1.img"]
        area: Any = memory.vmas[0]  # type: ignore[attr-defined]
        area.start, area.end = min(each.vaddr for each in entries) // PAGE * PAGE, max(ends) // PAGE * PAGE
    return dump


def test_page_counts_add_up(dumped: Dumped) -> None:
    present = PagemapEntry(vaddr=0x1000, compat_nr_pages=0, nr_pages=1, flags=4)
    lazy = PagemapEntry(vaddr=0x2000, compat_nr_pages=0, nr_pages=1, flags=6)
    read(dumped(pagemap(present, lazy)))


def test_page_counts_of_older_criu_add_up(dumped: Dumped) -> None:
    read(dumped(pagemap(*(PagemapEntry(vaddr=start, compat_nr_pages=1) for start in (0x1000, 0x2000)))))


def test_process_without_memory_of_its_own_has_no_pages_image(dumped: Dumped) -> None:
    dump = pagemap()
    del dump.raw["pages-1.img"]
    read(dumped(dump))


@pytest.mark.parametrize(
    ("entries", "reason", "words"),
    [
        ([PagemapEntry(vaddr=0x1000, nr_pages=2, flags=1)], "ParentMissing", "earlier dump"),
        ([PagemapEntry(vaddr=0x1000, nr_pages=2, flags=5)], "ParentMissing", "earlier dump"),
        ([PagemapEntry(vaddr=0x1000, nr_pages=2, in_parent=True)], "ParentMissing", "earlier dump"),
        ([PagemapEntry(vaddr=0x1000, nr_pages=2, flags=2)], "PagesMissing", "lazy"),
        ([PagemapEntry(vaddr=0x1000, nr_pages=2, flags=0)], "PagesMissing", "lazy"),
        ([PagemapEntry(vaddr=0x1001, nr_pages=2, flags=4)], "ImageDamaged", "not aligned"),
        ([PagemapEntry(vaddr=0x1000, nr_pages=0, flags=4)], "ImageDamaged", "order"),
        ([PagemapEntry(vaddr=0x1000, nr_pages=1 << 63, flags=4)], "ImageDamaged", "order"),
        ([PagemapEntry(vaddr=(1 << 64) - 0x1000, nr_pages=1, flags=4)], "ImageDamaged", "order"),
        ([PagemapEntry(vaddr=0x1000, compat_nr_pages=1, nr_pages=2, flags=4)], "ImageDamaged", "two counts"),
        ([PagemapEntry(vaddr=0x1000, nr_pages=2, flags=12)], "ImageDamaged", "flags 0xc"),
        ([PagemapEntry(vaddr=v, nr_pages=1, flags=4) for v in (0x2000, 0x1000)], "ImageDamaged", "order"),
        (
            [PagemapEntry(vaddr=0x1000, compat_nr_pages=1), PagemapEntry(vaddr=0x2000, nr_pages=1, flags=4)],
            "ImageDamaged",
            "some pages in 32 bits and others in 64",
        ),
        ([PagemapEntry(vaddr=v, nr_pages=2, flags=4) for v in (0x1000, 0x2000)], "ImageDamaged", "overlapping"),
    ],
)
def test_odd_pagemap_is_refused(
    entries: list[PagemapEntry], reason: str, words: str, dumped: Dumped, refused: Refused
) -> None:
    with refused(reason, "checkpoint/pagemap-1.img", words):
        read(dumped(pagemap(*entries)))


def test_last_page_that_a_process_can_have_is_a_page(dumped: Dumped) -> None:
    read(dumped(pagemap(PagemapEntry(vaddr=ADDRESS_MAX - 0x2000, compat_nr_pages=0, nr_pages=2, flags=4))))


def test_node_of_the_dump_may_have_kept_its_own_namespaces(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    own = dump.inventory().root_ids
    ids = dump.ids(1)
    ids.uts_ns_id, ids.ipc_ns_id, ids.net_ns_id = own.uts_ns_id, own.ipc_ns_id, own.net_ns_id
    for name in ("utsns-12.img", "ipcns-var-11.img", "netns-10.img"):
        del dump.images[name]
    read(dumped(dump))


def test_dump_without_cgroups_has_no_image_of_them(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    dump.core(1).thread_core.ClearField("cg_set")
    del dump.raw["cgroup.img"]
    read(dumped(dump))


def test_copy_of_a_tmpfs_that_is_handed_in_has_no_image_either(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes(2)
    dump.add_mount("/dev/shm", fstype=5, root=b"/", source=b"shm")
    dump.nest_mounts(2)
    read(dumped(dump))


def test_tmpfs_that_is_handed_in_has_no_image(dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    dump.add_mount("/dev/shm", fstype=5, root=b"/", ext_key=b"/dev/shm", root_dev=66)
    dump.add_mount("/part", fstype=5, root=b"/part", root_dev=67)
    read(dumped(dump))
    dump.add_mount("/run", fstype=5, root=b"/", root_dev=68)
    dump.mount("/run").ClearField("ext_key")
    with refused("FileMissing", "tmpfs-dev-68.tar.gz.img", "/run"):
        read(dumped(dump))


def test_two_pagemaps_with_the_same_pages_are_refused(dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes(2)
    dump.images["pagemap-2.img"][0].pages_id = 1  # type: ignore[attr-defined]
    with refused("ImageDamaged", "pagemap-2.img", "pagemap-1.img"):
        read(dumped(dump))


def test_pagemap_without_a_head_is_refused(dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    dump.images["pagemap-1.img"] = []
    with refused("ImageDamaged", "pagemap-1.img", "empty"):
        read(dumped(dump))


def test_pagemap_that_does_not_decode_is_refused(dumped: Dumped, refused: Refused) -> None:
    files = SyntheticDump.of_processes().files()
    files["checkpoint/pagemap-1.img"] += b"\2\0\0\0\xff\xff"
    with refused("ImageDamaged", "pagemap-1.img", "decode"):
        read(dumped(files))


def test_shared_memory_is_checked_too(dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    (memory,) = dump.images["mm-1.img"]
    memory.vmas.add(start=0x500000, end=0x501000, shmid=77, prot=3, flags=33, status=257, fd=-1)  # type: ignore[attr-defined]
    dump.images["pagemap-shmem-77.img"] = [PagemapHead(pages_id=9), PagemapEntry(vaddr=0, nr_pages=1, flags=4)]
    with refused("FileMissing", "pages-9.img"):
        read(dumped(dump))
    dump.raw["pages-9.img"] = bytes(PAGE)
    read(dumped(dump))
    dump.raw["pages-9.img"] = bytes(PAGE - 1)
    with refused("PagesSizeMismatch", "pages-9.img"):
        read(dumped(dump))


@pytest.mark.parametrize(("machine", "unit", "sound"), [(3, 65_536, True), (3, 4096, True), (1, 65_536, False)])
def test_page_size_depends_on_the_machine(
    machine: int, unit: int, sound: bool, dumped: Dumped, refused: Refused
) -> None:
    dump = SyntheticDump.of_processes(pages=2)
    if machine == 3:
        set_aarch64(dump)
    area: Any = dump.images["mm-1.img"][0].vmas[0]  # type: ignore[attr-defined]
    area.end = area.start + 2 * unit
    dump.raw["pages-1.img"] = bytes(2 * unit)
    if sound:
        read(dumped(dump))
    else:
        with refused("PagesSizeMismatch"):
            read(dumped(dump))


def with_filters(*filters: SeccompFilter, used: int | None = None) -> SyntheticDump:
    dump = SyntheticDump.of_processes()
    dump.images["seccomp.img"] = [SeccompEntry(seccomp_filters=filters)]
    if used is not None:
        dump.core(1).thread_core.seccomp_mode, dump.core(1).thread_core.seccomp_filter = 2, used
    return dump


def rule(prev: int | None = None, size: int = 8) -> SeccompFilter:
    return SeccompFilter(filter=bytes(size)) if prev is None else SeccompFilter(filter=bytes(size), prev=prev)


def test_filter_chains_pass(dumped: Dumped) -> None:
    read(dumped(with_filters(rule(), rule(0), rule(1), rule(1), used=3)))
    read(dumped(with_filters(rule(1), rule(), used=0)))


@pytest.mark.parametrize(
    ("filters", "used"),
    [
        ((rule(0),), 0),  # CRIU follows this for ever
        ((rule(1), rule(0)), None),
        ((rule(), rule(2), rule(3), rule(1)), None),
        ((rule(7),), None),
        ((rule(),), 1),
        ((), 0),
        ((rule(size=7),), None),
        ((rule(size=0),), None),
    ],
)
def test_odd_filters_are_refused(
    filters: tuple[SeccompFilter, ...], used: int | None, dumped: Dumped, refused: Refused
) -> None:
    with refused("ImageDamaged", "checkpoint/seccomp.img"):
        read(dumped(with_filters(*filters, used=used)))


def test_too_many_filters_are_refused(dumped: Dumped, refused: Refused) -> None:
    with refused("ImageDamaged", "seccomp.img", "65537 filters"):
        read(dumped(with_filters(*[rule()] * 65_537)))


def test_second_list_of_filters_is_refused(dumped: Dumped, refused: Refused) -> None:
    dump = with_filters(rule())
    dump.images["seccomp.img"] *= 2
    with refused("ImageDamaged", "seccomp.img", "2 messages"):
        read(dumped(dump))


def test_filter_of_a_thread_without_an_image_is_refused(dumped: Dumped, refused: Refused) -> None:
    dump = with_filters(used=0)
    del dump.images["seccomp.img"]
    with refused("ImageDamaged", "seccomp.img"):
        read(dumped(dump))


@pytest.mark.parametrize("name", ["cgroup.img", "ipcns-var-11.img", "netns-10.img", "timens-5.img", "utsns-12.img"])
def test_image_that_is_read_half_way_through_the_restore_is_whole(name: str, dumped: Dumped, refused: Refused) -> None:
    files = SyntheticDump.of_processes().files()
    pattern = re.sub(r"-\d+\.", "-%.", name)
    files[f"checkpoint/{name}"] = header(pattern) + bytes([2, 0, 0, 0, 8])
    with refused("ImageDamaged", f"checkpoint/{name}"):
        read(dumped(files))


def test_table_may_be_missing_where_every_file_is_used_otherwise(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes(2)
    dump.images["fdinfo-2.img"] = []
    files = dump.files()
    del files["checkpoint/fdinfo-2.img"]
    read(dumped(files))


def test_references_to_files_that_are_not_there_are_refused(dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    dump.images["fdinfo-1.img"].append(FdinfoEntry(id=77, type=1, fd=9))
    with refused("ImageDamaged", "fdinfo-1.img", "descriptor 9"):
        read(dumped(dump))
    dump = SyntheticDump.of_processes()
    dump.images["fdinfo-1.img"].append(FdinfoEntry(id=1, type=2, fd=9))  # an id of another kind of file
    with refused("ImageDamaged", "fdinfo-1.img", "descriptor 9"):
        read(dumped(dump))
    dump = SyntheticDump.of_processes()
    dump.images["mm-1.img"] = [MmEntry(exe_file_id=77)]
    with refused("ImageDamaged", "mm-1.img", "executable"):
        read(dumped(dump))
    for field, words in (("cwd_id", "working directory"), ("root_id", "root directory")):
        dump = SyntheticDump.of_processes()
        dump.images["fs-1.img"] = [FsEntry(**({"cwd_id": 5, "root_id": 5} | {field: 77}))]
        with refused("ImageDamaged", "fs-1.img", words):
            read(dumped(dump))


@pytest.mark.parametrize("document", [b"", b"{}", b"[1,2,3]", b'"x"', b"[", b'["a\\u0000","b","c"]', b"null"])
def test_malformed_descriptors_are_refused(document: bytes, dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    dump.raw["descriptors.json"] = document
    with pytest.raises(Exception, match=r"checkpoint/descriptors\.json") as caught:
        read(dumped(dump))
    assert caught.value.reason in ("MetadataMalformed", "DescriptorsInvalid")  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_descriptors_are_refused(count: int, dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    dump.raw["descriptors.json"] = json.dumps(["/dev/null"] * count).encode()
    with refused("DescriptorsInvalid", "stdin, stdout and stderr"):
        read(dumped(dump))


def test_every_truncated_image_is_refused(dumped: Dumped) -> None:
    whole = SyntheticDump.of_processes().files()
    for name, content in whole.items():
        if name.endswith(".tar.gz.img"):
            continue  # read_tmpfs reads these
        for cut in {1, len(content) // 2, len(content) - 1} - {0, len(content)}:
            with pytest.raises(Exception, match=r"checkpoint/") as caught:
                read(dumped(whole | {name: content[:cut]}))
            assert type(caught.value).__name__ == "CheckpointInvalid", (name, cut)
