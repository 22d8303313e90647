"""Open namespaces and descriptors of processes are of the dump's own processes."""

from __future__ import annotations

from typing import Any

import pytest

from shared.criu import criu_pb2 as pb
from shared.criu.dump import read_dump
from shared.criu.images import ImageDirectory
from shared.judge.kernel_objects import relations
from tests.support.checkpoints import SyntheticDump
from tests.support.pods import InMemory


def namespace(**fields: int) -> pb.FileEntry:
    return pb.FileEntry(type=14, id=50, nsf=pb.NsFileEntry(**{"id": 50, "ns_id": 10, "ns_cflag": 0x40000000} | fields))


def process(**fields: Any) -> pb.FileEntry:
    return pb.FileEntry(type=20, id=50, pidfd=pb.PidfdEntry(**{"id": 50, "ino": 9, "nspid": 2} | fields))


def found(entry: pb.FileEntry, *, held: bool = True) -> list[str]:
    made = SyntheticDump.of_processes(2)
    if held:
        made.add_file(entry, descriptor=9)
    else:
        made.images["files.img"].append(entry)
    files = InMemory(made.files())
    return [each.sentence for each in relations(ImageDirectory(files, "checkpoint"), read_dump(files))]


@pytest.mark.parametrize(
    "entry", [namespace(), namespace(ns_id=9, ns_cflag=0x20000000), process(), process(nspid=1), process(nspid=-1)]
)
def test_honest(entry: pb.FileEntry) -> None:
    assert found(entry) == []


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        (namespace(ns_id=99), "NsFileEntry.ns_id"),
        (namespace(ns_id=2), "NsFileEntry.ns_id"),  # the node's network
        (namespace(ns_id=0), "NsFileEntry.ns_id"),
        (namespace(ns_cflag=0x20000000), "NsFileEntry.ns_cflag"),
        (namespace(id=51), "NsFileEntry.id"),
        (process(id=51), "PidfdEntry.id"),
        (process(nspid=3), "PidfdEntry.nspid"),
        (process(nspid=0), "PidfdEntry.nspid"),
        (process(nspid=-2), "PidfdEntry.nspid"),
    ],
)
def test_forged(entry: pb.FileEntry, named: str) -> None:
    (sentence,) = found(entry)
    assert named in sentence


def test_descriptor_of_an_ended_process_that_nobody_holds() -> None:
    (sentence,) = found(process(nspid=-1), held=False)
    assert "no process holds" in sentence
