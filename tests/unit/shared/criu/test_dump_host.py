from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import pytest

from shared.archive import CheckpointFiles, open_checkpoint
from shared.criu import criu_pb2
from shared.criu.dump_host import DumpHost, read_dump_host
from tests.support.checkpoints import SyntheticDump, completed
from tests.unit.shared.conftest import SAMPLES

Dumped = Callable[[SyntheticDump | Mapping[str, bytes]], CheckpointFiles]
LOG = (
    b"(00.000132) Version: 4.2.1 (gitid 0)\n"
    b"(00.000136) Running on node-1 Linux 6.8.0-41-generic #41-Ubuntu SMP PREEMPT_DYNAMIC Fri Aug  2 x86_64\n"
    b"(00.028063) cpu: x86_family 25 x86_vendor_id AuthenticAMD x86_model_id AMD EPYC 9B14    \n"
)
STATS = struct.pack("<II", 0x55105940, 0x57093306)


def stats(**fields: int) -> bytes:
    message = completed(criu_pb2.StatsEntry(dump=criu_pb2.DumpStatsEntry(**fields))).SerializeToString()
    return STATS + struct.pack("<I", len(message)) + message


def test_log_says_which_machine(dumped: Dumped) -> None:
    assert read_dump_host(dumped({"dump.log": LOG})) == DumpHost(
        "6.8.0-41-generic", "x86_64", "AMD EPYC 9B14", None, None
    )


def test_log_beside_the_images_is_read_too(dumped: Dumped) -> None:
    assert read_dump_host(dumped({"checkpoint/dump.log": LOG})).machine == "x86_64"


def test_statistics_say_how_long_it_stood_still(dumped: Dumped) -> None:
    host = read_dump_host(dumped({"stats-dump": stats(frozen_time=158_884, memwrite_time=201)}))
    assert (host.frozen_s, host.memory_written_s) == (0.158884, 0.000201)


@pytest.mark.parametrize(
    "files",
    [
        {"other": b""},
        {"dump.log": b"\xff\0" * 200_000},
        {"dump.log": b"(0.0) Running on \x1b[31m Linux 6.8 #1 x86_64\n"},
        {"dump.log": b"(0.0) Running on a Linux ../../6 #1 x86_64\n"},
        {"stats-dump": STATS},
        {"stats-dump": STATS + b"\xff" * 60},
        {"stats-dump": b"PK" + bytes(60)},
        {"stats-dump": stats(frozen_time=1) + bytes(5000)},
    ],
)
def test_what_is_malformed_counts_as_not_recorded(dumped: Dumped, files: dict[str, bytes]) -> None:
    assert read_dump_host(dumped(files)) == DumpHost(None, None, None, None, None)


def test_real_checkpoint() -> None:
    if not SAMPLES.is_dir():
        pytest.skip("the real checkpoints lie beside the checkout, in ../shared/data, and are not there")
    with open_checkpoint(SAMPLES / "counter-containerd21.tar") as files:
        host = read_dump_host(files)
    assert (host.kernel, host.machine, host.cpu) == ("6.18.44-fc-v782", "x86_64", "AMD EPYC")
    assert host.frozen_s == pytest.approx(0.122484)
