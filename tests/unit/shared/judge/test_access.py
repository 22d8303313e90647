"""Mounts that the pod has read-only: what is open for writing there, and what is mounted below."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import Any, cast

import pytest

from shared.criu import criu_pb2 as pb
from shared.judge.access import access_refusals
from shared.judge.corrections import corrections
from tests.support.pods import Security, read, spec, synthetic_dump


def test_volumes_that_are_read_only_below_too_are_made_so_afterwards() -> None:
    live = spec(Security(data_read_only=True))
    mounts = (replace(each, options=("rbind", "rro")) if each.destination == "/data" else each for each in live.mounts)
    found = corrections(read(synthetic_dump(Security())), replace(live, mounts=tuple(mounts)))
    assert found.recursive == ("/data",)
    assert corrections(read(synthetic_dump(Security())), live).recursive == ()


def test_file_that_is_mapped_for_writing_counts_as_open_for_it() -> None:
    made = synthetic_dump(Security())
    file = pb.RegFileEntry(id=77, name=b"/data/x", mnt_id=made.mount("/data").mnt_id, mode=stat.S_IFREG | 0o644)
    made.add_file(pb.FileEntry(type=1, id=77, reg=file), descriptor=9)
    area = pb.VmaEntry(start=0x7000000, end=0x7001000, prot=3, flags=1, status=1 | 1 << 7, shmid=77, fd=-1, pgoff=0)
    cast(pb.MmEntry, made.images["mm-1.img"][0]).vmas.append(area)
    assert [each.reason for each in access_refusals(read(made), spec(Security(data_read_only=True)))] == [
        "WritableFileOpen"
    ]


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"flags": os.O_RDWR}, True),
        ({"flags": os.O_WRONLY | os.O_APPEND}, True),
        ({"flags": os.O_RDONLY}, False),
        ({"flags": os.O_RDWR | os.O_PATH}, False),
        ({"flags": os.O_RDWR, "mode": stat.S_IFIFO | 0o600}, False),
        ({"flags": os.O_RDWR, "mode": stat.S_IFCHR | 0o600}, False),
    ],
)
def test_file_that_is_open_for_writing_keeps_a_mount_writable(fields: dict[str, Any], refused: bool) -> None:
    """Pipes and devices are not written to on the mount."""
    made = synthetic_dump(Security())
    mount = made.mount("/data").mnt_id
    file = pb.RegFileEntry(id=77, name=b"/data/x", mnt_id=mount, **{"mode": stat.S_IFREG | 0o644, **fields})
    made.add_file(pb.FileEntry(type=1, id=77, reg=file), descriptor=9)
    found = [each.reason for each in access_refusals(read(made), spec(Security(data_read_only=True)))]
    assert found == (["WritableFileOpen"] if refused else [])
    assert not list(access_refusals(read(made), spec(Security(read_only_root=True))))
    assert not list(access_refusals(read(made), spec(Security())))
