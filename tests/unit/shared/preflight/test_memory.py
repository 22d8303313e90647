from __future__ import annotations

import pytest

from shared.criu import criu_pb2 as pb
from shared.criu.dump import Dump, read_dump
from shared.criu.images import ImageDirectory
from shared.preflight.memory import check_memory_limit, least_bytes
from tests.support.checkpoints import PAGE, SyntheticDump
from tests.unit.shared.conftest import Open

PAGES = 512


def opened(open_files: Open, dump: SyntheticDump) -> tuple[ImageDirectory, Dump]:
    files = open_files(dump.files())
    return ImageDirectory(files, "checkpoint"), read_dump(files)


def area_of(dump: SyntheticDump, pid: int = 1) -> pb.VmaEntry:
    mm = dump.images[f"mm-{pid}.img"][0]
    assert isinstance(mm, pb.MmEntry)
    return mm.vmas[0]


@pytest.mark.parametrize(("limit", "codes"), [(PAGES * PAGE, []), (PAGES * PAGE - 1, ["MemoryLimitTooLow"])])
def test_limit_must_hold_what_was_dumped(open_files: Open, limit: int, codes: list[str]) -> None:
    images, dump = opened(open_files, SyntheticDump.of_processes(pages=PAGES))
    found = list(check_memory_limit(images, dump, limit))
    assert [each.code for each in found] == codes
    assert all("hold 2 MiB" in each.sentence and "above 2Mi" in each.sentence for each in found)


def test_memory_of_forks_may_be_there_only_once(open_files: Open) -> None:
    images, dump = opened(open_files, SyntheticDump.of_processes(3, pages=PAGES))
    assert dump.memory_bytes == 3 * PAGES * PAGE
    assert least_bytes(images, dump) == PAGES * PAGE
    assert not list(check_memory_limit(images, dump, PAGES * PAGE))


def test_memory_at_other_addresses_is_there_too(open_files: Open) -> None:
    synthetic = SyntheticDump.of_processes(2, pages=PAGES)
    area = area_of(synthetic, 2)
    area.start, area.end = area.start + PAGE, area.end + PAGE
    pagemap = synthetic.images["pagemap-2.img"][1]
    assert isinstance(pagemap, pb.PagemapEntry)
    pagemap.vaddr += PAGE
    images, dump = opened(open_files, synthetic)
    assert least_bytes(images, dump) == 2 * PAGES * PAGE


def test_huge_pages_have_a_limit_of_their_own(open_files: Open) -> None:
    synthetic = SyntheticDump.of_processes(pages=PAGES)
    area_of(synthetic).flags |= 0x40000
    assert least_bytes(*opened(open_files, synthetic)) == 0


def test_shared_segment_counts_once(open_files: Open) -> None:
    synthetic = SyntheticDump.of_processes(2, pages=1)
    for pid in (1, 2):
        mm = synthetic.images[f"mm-{pid}.img"][0]
        assert isinstance(mm, pb.MmEntry)
        mm.vmas.append(
            pb.VmaEntry(
                start=0x7F0000000000,
                end=0x7F0000000000 + 5 * PAGE,
                pgoff=0,
                shmid=7,
                prot=3,
                flags=0x21,
                status=0x101,
                fd=-1,
            )
        )
    synthetic.images["pagemap-shmem-7.img"] = [
        pb.PagemapHead(pages_id=9),
        pb.PagemapEntry(vaddr=0, compat_nr_pages=0, flags=4, nr_pages=5),
    ]
    synthetic.raw["pages-9.img"] = bytes(5 * PAGE)
    assert least_bytes(*opened(open_files, synthetic)) == 6 * PAGE
