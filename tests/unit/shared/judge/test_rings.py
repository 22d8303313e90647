"""Where /dev/null leads, when CRIU writes to it for a process with AIO rings."""

from __future__ import annotations

from typing import Any

import pytest

from shared.criu import criu_pb2 as pb
from shared.criu.areas import AIO_RING
from shared.judge.rings import ring_refusals
from shared.special_files import SpecialFile
from tests.support.checkpoints import PAGE
from tests.support.pods import Security, read, synthetic_dump


def special(path: str, kind: Any, major: int = 0, minor: int = 0) -> SpecialFile:
    return SpecialFile(path, kind, major, minor, 0o666, 0, 0, capabilities=False)


NULL = special("/dev/null", "character device", 1, 3)


@pytest.mark.parametrize("rings", [True, False])
@pytest.mark.parametrize(
    ("files", "accepted"),
    [
        ((NULL, special("/dev/stdin", "symbolic link")), True),
        ((NULL, NULL), True),
        ((), False),
        ((special("/dev/null", "symbolic link"),), False),
        ((NULL, special("/dev/null", "symbolic link")), False),
        ((NULL, special("/dev", "symbolic link")), False),
        ((special("/dev/null", "character device", 1, 5),), False),
    ],
)
def test_null_is_the_device(rings: bool, files: tuple[SpecialFile, ...], accepted: bool) -> None:
    made = synthetic_dump(Security(), 1)
    mm: Any = made.images["mm-1.img"][0]
    if rings:
        area = {"pgoff": 0, "shmid": 0, "prot": 3, "flags": 1, "fd": -1, "status": AIO_RING}
        mm.vmas.append(pb.VmaEntry(start=0x900000, end=0x900000 + PAGE, **area))
        mm.aios.add(id=0x900000, nr_req=1, ring_len=PAGE)
    found = [refused.reason for refused in ring_refusals(read(made), files)]
    assert found == ([] if accepted or not rings else ["FileExceeds"])
