from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from shared.archive import CheckpointFiles, open_checkpoint
from shared.compression import Compression
from shared.criu import criu_pb2
from shared.criu.images import ImageDirectory
from shared.criu.memory import AREAS_MAX, read_address_space, read_memory, segment_bytes
from tests.support.checkpoints import PAGE, SyntheticDump, tar_of
from tests.unit.shared.conftest import Refusal

Dumped = Callable[[SyntheticDump | Mapping[str, bytes]], CheckpointFiles]
Refused = type[Refusal]
REGULAR, HEAP, FILE, SHARED_FILE, SHARED, PRIVATE, MEMFD, VDSO = 1, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 9, 1 << 14, 8


def mm_of(dump: SyntheticDump, pid: int = 1) -> criu_pb2.MmEntry:
    return cast(criu_pb2.MmEntry, dump.images[f"mm-{pid}.img"][0])


def area(start: int, pages: int, status: int, **fields: Any) -> criu_pb2.VmaEntry:
    values = {"pgoff": 0, "shmid": 0, "prot": 3, "flags": 0x22, "fd": -1, "status": status}
    return criu_pb2.VmaEntry(start=start, end=start + pages * PAGE, **(values | fields))


def set_areas(dump: SyntheticDump, *areas: criu_pb2.VmaEntry) -> None:
    mm = mm_of(dump)
    del mm.vmas[:]
    mm.vmas.extend(areas)


def set_runs(dump: SyntheticDump, *runs: tuple[int, int], flags: int = 4) -> None:
    """Address and number of pages each; page n of the image is filled with n."""
    entries = [criu_pb2.PagemapEntry(vaddr=start, compat_nr_pages=0, flags=flags, nr_pages=n) for start, n in runs]
    dump.images["pagemap-1.img"] = [criu_pb2.PagemapHead(pages_id=1), *entries]
    dump.raw["pages-1.img"] = b"".join(bytes([n]) * PAGE for n in range(sum(n for _, n in runs)))


def images_of(files: CheckpointFiles) -> ImageDirectory:
    return ImageDirectory(files, "checkpoint")


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"status": REGULAR | PRIVATE}, "anonymous"),
        ({"status": REGULAR | PRIVATE | HEAP}, "heap"),
        ({"status": REGULAR | PRIVATE, "flags": 0x122}, "stack"),
        ({"status": REGULAR | PRIVATE | 2}, "stack"),
        ({"status": REGULAR | PRIVATE | 1 << 15}, "stack"),
        ({"status": REGULAR | FILE}, "file"),
        ({"status": REGULAR | SHARED_FILE}, "shared file"),
        ({"status": REGULAR | SHARED}, "shared"),
        ({"status": REGULAR | SHARED | 1 << 10}, "shared"),
        ({"status": REGULAR | SHARED_FILE | MEMFD}, "memfd"),
        ({"status": REGULAR | PRIVATE | VDSO}, "kernel"),
        ({"status": REGULAR | PRIVATE | 1 << 12}, "kernel"),
        ({"status": REGULAR | 1 << 11}, "other"),
    ],
)
def test_kind_of_an_area(dumped: Dumped, fields: dict[str, int], kind: str) -> None:
    dump = SyntheticDump.of_processes()
    set_areas(dump, area(0x10000, 1, **fields))
    set_runs(dump)
    (found,) = read_address_space(images_of(dumped(dump)), 1).areas
    assert found.kind == kind


def test_guard_regions_behind_the_areas_are_no_areas(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    set_areas(dump, area(0x10000, 4, REGULAR | PRIVATE), area(0x11000, 1, 1 << 16, flags=0, prot=0))
    set_runs(dump, (0x12000, 1))
    (found,) = read_address_space(images_of(dumped(dump)), 1).areas
    assert (found.size, found.dumped_bytes) == (4 * PAGE, PAGE)


def test_area_that_holds_the_start_of_the_stack_is_the_stack(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    mm_of(dump).mm_start_stack = 0x400800
    assert read_address_space(images_of(dumped(dump)), 1).areas[0].kind == "stack"


def test_access_and_file_of_a_mapping(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    set_areas(
        dump,
        area(0x10000, 1, REGULAR | FILE, shmid=1, prot=5, pgoff=PAGE),
        area(0x20000, 1, REGULAR | SHARED, shmid=7, prot=1),
    )
    set_runs(dump)
    program, shared = read_address_space(images_of(dumped(dump)), 1).areas
    assert (program.access, program.file, program.segment, program.offset) == ("r-xp", 1, None, PAGE)
    assert (shared.access, shared.file, shared.segment) == ("r--s", None, 7)


def test_dumped_pages_are_counted_for_the_areas_they_fall_into(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    set_areas(
        dump,
        area(0x10000, 4, REGULAR | PRIVATE),
        area(0x14000, 4, REGULAR | PRIVATE),
        area(0x20000, 4, REGULAR | PRIVATE),
    )
    set_runs(dump, (0x11000, 1), (0x13000, 3), (0x22000, 2))
    space = read_address_space(images_of(dumped(dump)), 1)
    assert [each.dumped_bytes // PAGE for each in space.areas] == [2, 2, 2]
    assert (space.dumped_bytes, space.mapped_bytes) == (6 * PAGE, 12 * PAGE)


def test_pages_outside_every_area_count_nowhere(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    set_runs(dump, (0x1000, 1), (0x900000, 1))
    assert read_address_space(images_of(dumped(dump)), 1).dumped_bytes == 0


def test_page_size_follows_from_the_pages_image(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    set_areas(dump, area(0x400000, 32, REGULAR | PRIVATE))
    set_runs(dump, (0x400000, 2))
    dump.raw["pages-1.img"] = bytes(2 * 65_536)
    space = read_address_space(images_of(dumped(dump)), 1)
    assert (space.page_bytes, space.dumped_bytes) == (65_536, 2 * 65_536)


def test_memory_is_read_across_runs_that_touch(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    set_areas(dump, area(0x10000, 8, REGULAR | PRIVATE))
    set_runs(dump, (0x10000, 1), (0x11000, 1), (0x14000, 1))
    images = images_of(dumped(dump))
    space = read_address_space(images, 1)
    assert read_memory(images, space, 0x10FFE, 0x11002) == b"\0\0\1\1"
    assert read_memory(images, space, 0x14000, 0x14002) == b"\2\2"


def test_reading_stops_where_nothing_was_dumped(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    set_areas(dump, area(0x10000, 8, REGULAR | PRIVATE))
    set_runs(dump, (0x10000, 1), (0x12000, 1))
    images = images_of(dumped(dump))
    space = read_address_space(images, 1)
    assert read_memory(images, space, 0x10FFE, 0x12004) == b"\0\0"
    assert read_memory(images, space, 0x11000, 0x12004) == b""
    assert read_memory(images, space, 0x50000, 0x50004) == b""


def test_memory_in_a_compressed_archive_too_large_to_keep(tmp_path: Path) -> None:
    dump = SyntheticDump.of_processes(pages=1500)
    dump.raw["pages-1.img"] = bytes(1400 * PAGE) + b"here" + bytes(100 * PAGE - 4)
    path = tmp_path / "dump.tar.gz"
    path.write_bytes(tar_of(dump.files(), Compression.GZIP))
    with open_checkpoint(path) as files:
        images = images_of(files)
        space = read_address_space(images, 1)
        start = 0x400000 + 1400 * PAGE
        assert read_memory(images, space, start, start + 4) == b"here"


def test_shared_segment_is_counted_once(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    dump.images["pagemap-shmem-7.img"] = [
        criu_pb2.PagemapHead(pages_id=9),
        criu_pb2.PagemapEntry(vaddr=0, compat_nr_pages=0, flags=4, nr_pages=3),
    ]
    dump.raw["pages-9.img"] = bytes(3 * PAGE)
    images = images_of(dumped(dump))
    assert segment_bytes(images, 7) == 3 * PAGE
    assert segment_bytes(images, 8) == 0


def test_process_without_private_memory_has_no_pages_image(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    set_runs(dump)
    del dump.raw["pages-1.img"]
    assert read_address_space(images_of(dumped(dump)), 1).dumped_bytes == 0


@pytest.mark.parametrize(
    "areas",
    [
        [area(0x20000, 1, 513), area(0x10000, 1, 513)],
        [area(0x10000, 2, 513), area(0x11000, 2, 513)],
        [area(0x10000, 0, 513)],
    ],
)
def test_areas_out_of_order_are_refused(dumped: Dumped, refused: Refused, areas: list[criu_pb2.VmaEntry]) -> None:
    dump = SyntheticDump.of_processes()
    set_areas(dump, *areas)
    files = dumped(dump)
    with refused("ImageDamaged", "mm-1.img", "area at"):
        read_address_space(images_of(files), 1)


def test_more_areas_than_linux_has_are_refused_before_they_are_decoded(dumped: Dumped, refused: Refused) -> None:
    files = dict(SyntheticDump.of_processes().files())
    name = "checkpoint/mm-1.img"
    body = b"\x72\x00" * (AREAS_MAX + 1)
    files[name] = files[name][:8] + len(body).to_bytes(4, "little") + body
    opened = dumped(files)
    with refused("ImageDamaged", "too many areas"):
        read_address_space(images_of(opened), 1)


def test_runs_that_overlap_are_refused(dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    set_runs(dump, (0x400000, 2), (0x401000, 1))
    files = dumped(dump)
    with refused("ImageDamaged", "pagemap-1.img", "overlapping"):
        read_address_space(images_of(files), 1)


@pytest.mark.parametrize("size", [0, PAGE, 2 * PAGE - 1, 3 * PAGE])
def test_pages_image_of_the_wrong_size_is_refused(dumped: Dumped, refused: Refused, size: int) -> None:
    dump = SyntheticDump.of_processes()
    dump.raw["pages-1.img"] = bytes(size)
    files = dumped(dump)
    with refused("ImageDamaged", "pages-1.img", "2 pages"):
        read_address_space(images_of(files), 1)


def test_real_command_lines(sample: Path) -> None:
    with open_checkpoint(sample) as files:
        images = images_of(files)
        space = read_address_space(images, 1)
        command = read_memory(images, space, *space.arguments)
    assert command.startswith(b"sh\0-c\0i=0; while true;")
    assert {each.kind for each in space.areas} == {"anonymous", "heap", "stack", "file", "kernel"}
    assert space.dumped_bytes == files_size(sample, "checkpoint/pages-1.img")


def files_size(path: Path, name: str) -> int:
    with open_checkpoint(path) as files:
        return files.size(name)
