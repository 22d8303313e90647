"""Every parser of foreign bytes, in a few seconds each: sound inputs, bombs, past findings, and changed sound inputs.

``make fuzz`` does the same for minutes, guided by coverage.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_restore.inspect.gather import gather
from shared.judge import read
from tests.fuzz.bounds import RanAway, bounded
from tests.fuzz.checkpoint import MemoryFiles, sound
from tests.fuzz.every import EVERY
from tests.fuzz.target import Target

FINDINGS = Path(__file__).parent / "findings"
BRIEF = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
TARGETS = pytest.mark.parametrize("target", EVERY.values(), ids=EVERY.keys())
Change = tuple[int, int, bytes]
CHANGES = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 40), st.binary(max_size=40)), max_size=5)


@functools.cache
def seeds(target: Target) -> list[bytes]:
    return list(target.seeds())


def changed(content: bytes, changes: list[Change]) -> bytes:
    """Each change replaces some bytes somewhere by others, so that what follows moves."""
    for where, length, piece in changes:
        at = where % (len(content) + 1)
        content = content[:at] + piece + content[at + length :]
    return content


@TARGETS
def test_sound_inputs_and_bombs_stay_within_memory_and_time(target: Target) -> None:
    for seed in seeds(target):
        with bounded():
            target.hold(seed)


@TARGETS
@BRIEF
@given(data=st.data())
def test_changed_inputs_are_understood_or_refused(target: Target, data: st.DataObject) -> None:
    content = changed(data.draw(st.sampled_from(seeds(target))), data.draw(CHANGES))
    with bounded():
        target.hold(content)


@TARGETS
def test_past_findings_stay_found(target: Target) -> None:
    for path in sorted((FINDINGS / target.name).glob("*")):
        with bounded():
            target.hold(path.read_bytes())


def test_every_finding_belongs_to_a_target() -> None:
    assert {path.name for path in FINDINGS.iterdir()} <= EVERY.keys()


def test_the_checkpoint_that_inputs_are_put_into_is_sound() -> None:
    files = MemoryFiles(dict(sound()))
    assert len(read(files).dump.tasks) == 2
    assert len(gather(files, "checkpoint.tar").processes) == 2


def test_a_parser_that_runs_away_is_stopped() -> None:
    with pytest.raises(RanAway), bounded(cpu_s=0.05):
        while True:
            pass


def test_a_parser_that_eats_memory_is_stopped() -> None:
    with pytest.raises(MemoryError), bounded(memory_bytes=64 << 20):
        bytearray(4 << 30)  # more than what earlier tests have freed


def test_a_breach_of_the_contract_is_seen() -> None:
    def read(content: bytes) -> None:
        raise KeyError(content)

    with pytest.raises(KeyError):
        Target("broken", read, list).hold(b"x")
