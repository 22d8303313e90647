"""Memory at the lowest addresses and locked memory, against the pod's rights and limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from shared.criu import criu_pb2 as pb
from shared.criu.images import ImageDirectory
from shared.judge.memory_limits import memory_refusals
from shared.spec import Rlimit, RuntimeSpec
from tests.support.checkpoints import SyntheticDump
from tests.support.pods import InMemory, Security, read, spec, synthetic_dump

Change = Callable[[SyntheticDump], None]


def reasons(change: Change, live: RuntimeSpec) -> list[str]:
    made = synthetic_dump(Security(), 1)
    change(made)
    images = ImageDirectory(InMemory(made.files()), "checkpoint")
    return [refused.reason for refused in memory_refusals(images, read(made), live)]


def area(**fields: int) -> Change:
    def change(dump: SyntheticDump) -> None:
        entry = dump.images["mm-1.img"][0]
        assert isinstance(entry, pb.MmEntry)
        for key, value in fields.items():
            setattr(entry.vmas[0], key, value)

    return change


LOCKED = area(flags=0x2022)
ORDINARY = spec(Security())
LIMITED = replace(ORDINARY, rlimits=(Rlimit("RLIMIT_MEMLOCK", 4096, 4096),))


@pytest.mark.parametrize(
    ("change", "live", "expected"),
    [
        (area(), LIMITED, []),
        (area(start=0x1000), ORDINARY, ["CapabilitiesExceed"]),
        (area(start=0x10000), ORDINARY, []),
        (area(start=0x1000), spec(replace(Security(), add=("CAP_SYS_RAWIO",))), []),
        (LOCKED, ORDINARY, []),
        (LOCKED, LIMITED, ["RlimitExceeds"]),
        (LOCKED, replace(LIMITED, capabilities=spec(replace(Security(), add=("CAP_IPC_LOCK",))).capabilities), []),
    ],
)
def test_memory_that_takes_a_right(change: Change, live: RuntimeSpec, expected: list[str]) -> None:
    assert reasons(change, live) == expected


def test_limit_of_the_process_itself_counts_too() -> None:
    def change(dump: SyntheticDump) -> None:
        LOCKED(dump)
        dump.core(1).tc.rlimits.rlimits[8].max = 4096

    assert reasons(change, ORDINARY) == ["RlimitExceeds"]
