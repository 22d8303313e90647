"""Links of a tmpfs are found at every place where it is mounted."""

from __future__ import annotations

import pytest

from shared.judge.tmpfs_links import TmpfsLinks
from tests.support.checkpoints import SyntheticDump
from tests.support.pods import Security, read, synthetic_dump


def dump() -> SyntheticDump:
    made = synthetic_dump(Security(add=("CAP_SYS_ADMIN",)))
    device = made.mount("/dev").root_dev
    made.add_mount("/mnt", fstype=5, root=b"/", ext_key=None, source=b"tmpfs", root_dev=device)
    return made


@pytest.mark.parametrize("path", ["/dev/a", "/dev/a/b", "/mnt/a", "/mnt/a/b"])
def test_path_by_way_of_a_link(path: str) -> None:
    assert TmpfsLinks(read(dump()), {"/dev/./a"}).lead_to(path)


@pytest.mark.parametrize("path", ["/dev", "/dev/ab", "/mnt", "/mnt/b/a", "/a", "/"])
def test_other_path(path: str) -> None:
    assert not TmpfsLinks(read(dump()), {"/dev/a"}).lead_to(path)
    assert not TmpfsLinks(read(dump()), frozenset()).lead_to(path)
