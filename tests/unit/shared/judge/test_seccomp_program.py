"""What seccomp filters may allow: programs assembled by hand, each with one thing the evaluator must understand."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from shared.errors import CheckpointInvalid
from shared.judge.seccomp_program import Filter, Interval, intersection, minus, read_filter, union
from tests.support.bpf import (
    AARCH64,
    ALLOW,
    ARCHITECTURE,
    ARGUMENT,
    ERRNO,
    I386,
    KILL_PROCESS,
    KILL_THREAD,
    LOG,
    NOTIFY,
    NUMBER,
    TOP,
    TRACE,
    TRAP,
    X32_BIT,
    X86_64,
    Instruction,
    answer,
    for_x86_64,
    go,
    jump,
    load,
    program,
)


def read(*instructions: Instruction) -> Filter:
    return read_filter(program(*instructions))


def allowed(found: Filter, architecture: int = X86_64) -> list[tuple[int, int]]:
    return found.answers(architecture).allowed


def denied(found: Filter, architecture: int = X86_64) -> list[tuple[int, int]]:
    return found.answers(architecture).denied


# ---- answers ----


@pytest.mark.parametrize("value", [ALLOW, LOG, TRACE, NOTIFY, ALLOW | 0xFFFF])
def test_whatever_may_let_a_call_pass_allows(value: int) -> None:
    """A tracer or a listener decides by itself, and is not there when the container is restored."""
    found = read(answer(value))
    assert (allowed(found), denied(found)) == ([(0, TOP)], [])


@pytest.mark.parametrize("value", [ERRNO, TRAP, KILL_THREAD, KILL_PROCESS, 0x7FBF0000, 0xFFFF0000])
def test_errors_and_signals_deny(value: int) -> None:
    """Also what no kernel knows, which it takes for killing."""
    found = read(answer(value))
    assert (allowed(found), denied(found)) == ([], [(0, TOP)])


def test_answer_that_was_computed_may_be_anything() -> None:
    assert allowed(read(load(ARGUMENT), (0x16, 0, 0, 0))) == [(0, TOP)]


# ---- numbers ----


def test_one_number_is_allowed() -> None:
    found = read_filter(for_x86_64(jump("eq", 165, 0, 1), answer(ALLOW), answer(ERRNO)))
    assert allowed(found) == [(165, 165)]
    assert denied(found) == [(0, 164), (166, TOP)]


@pytest.mark.parametrize(
    ("operation", "value", "numbers"),
    [("ge", 100, (100, TOP)), ("gt", 100, (101, TOP)), ("ge", 0, (0, TOP)), ("eq", 0, (0, 0)), ("eq", TOP, (TOP, TOP))],
)
def test_comparisons_have_the_kernels_borders(operation: str, value: int, numbers: tuple[int, int]) -> None:
    found = read(load(NUMBER), jump(operation, value, 0, 1), answer(ALLOW), answer(ERRNO))
    assert allowed(found) == [numbers]


def test_comparison_that_no_number_passes() -> None:
    assert allowed(read(load(NUMBER), jump("gt", TOP, 0, 1), answer(ALLOW), answer(ERRNO))) == []


def test_search_tree_finds_each_leaf() -> None:
    """As libseccomp sorts numbers with SCMP_FLTATR_CTL_OPTIMIZE."""
    found = read(
        load(NUMBER), jump("ge", 10, 0, 2),
        jump("eq", 12, 3, 0), jump("eq", 15, 2, 1),
        jump("eq", 3, 1, 0), answer(ERRNO), answer(ALLOW),
    )  # fmt: skip
    assert allowed(found) == [(3, 3), (12, 12), (15, 15)]


def test_unconditional_jump_skips() -> None:
    assert allowed(read(go(1), answer(ALLOW), answer(ERRNO))) == []


# ---- architectures ----


def test_other_architecture_is_judged_apart() -> None:
    found = read(
        load(ARCHITECTURE), jump("eq", X86_64, 2, 0), jump("eq", I386, 0, 1), answer(ALLOW), answer(ERRNO)
    )  # fmt: skip
    assert allowed(found, X86_64) == []
    assert allowed(found, I386) == [(0, TOP)]
    assert allowed(found, AARCH64) == []


def test_architecture_that_the_program_does_not_name() -> None:
    found = read(load(ARCHITECTURE), jump("eq", X86_64, 1, 0), answer(ALLOW), answer(ERRNO))
    assert allowed(found, X86_64) == []
    assert allowed(found, AARCH64) == found.by_architecture[None].allowed == [(0, TOP)]


def test_program_without_a_look_at_the_architecture_says_the_same_for_all() -> None:
    found = read(load(NUMBER), jump("eq", 1, 0, 1), answer(ALLOW), answer(ERRNO))
    assert allowed(found, X86_64) == allowed(found, I386) == [(1, 1)]


def test_architecture_compared_in_another_way_goes_both_ways() -> None:
    found = read(load(ARCHITECTURE), jump("ge", X86_64, 0, 1), answer(ALLOW), answer(ERRNO))
    assert allowed(found) == denied(found) == [(0, TOP)]


def test_numbers_of_x32_can_be_told_apart() -> None:
    found = read_filter(for_x86_64(jump("ge", X32_BIT, 0, 1), answer(ERRNO), answer(ALLOW)))
    assert allowed(found) == [(0, X32_BIT - 1)]
    by_bit = read_filter(for_x86_64(jump("set", X32_BIT, 0, 1), answer(ERRNO), answer(ALLOW)))
    assert allowed(by_bit) == [(0, X32_BIT - 1), (2 * X32_BIT, 3 * X32_BIT - 1)]
    assert allowed(read_filter(for_x86_64(answer(ALLOW)))) == [(0, TOP)], "x32 too, where nothing keeps it out"


# ---- arguments ----


def test_call_that_depends_on_an_argument_is_in_both() -> None:
    """As ``personality`` in the runtimes' default profile."""
    found = read_filter(
        for_x86_64(jump("eq", 135, 0, 3), load(ARGUMENT), jump("eq", 8, 0, 1), answer(ALLOW), answer(ERRNO))
    )
    assert allowed(found) == [(135, 135)]
    assert denied(found) == [(0, TOP)]


@pytest.mark.parametrize(
    "changed",
    [
        (0x54, 0, 0, 0xFF),  # A &= 0xff
        (0x04, 0, 0, 1),  # A += 1
        (0x87, 0, 0, 0),  # A = X
        (0x60, 0, 0, 0),  # A = M[0]
        (0x00, 0, 0, 7),  # A = 7
        (0x80, 0, 0, 0),  # A = size of seccomp_data
    ],
)
def test_number_that_was_computed_with_may_be_any(changed: Instruction) -> None:
    found = read(load(NUMBER), changed, jump("eq", 165, 0, 1), answer(ALLOW), answer(ERRNO))
    assert allowed(found) == [(0, TOP)]


@pytest.mark.parametrize("between", [(0x02, 0, 0, 0), (0x07, 0, 0, 0), (0x01, 0, 0, 5)])
def test_store_and_loads_of_x_leave_the_number_alone(between: Instruction) -> None:
    found = read(load(NUMBER), between, jump("eq", 165, 0, 1), answer(ALLOW), answer(ERRNO))
    assert allowed(found) == [(165, 165)]


def test_comparison_with_x_goes_both_ways() -> None:
    assert allowed(read(load(NUMBER), (0x1D, 0, 1, 0), answer(ALLOW), answer(ERRNO))) == [(0, TOP)]


# ---- programs that no kernel takes, or that cannot be judged ----


@pytest.mark.parametrize(
    ("instructions", "says"),
    [
        ([], "is empty or too long"),
        ([answer(ERRNO)] * 4097, "is empty or too long"),
        ([load(NUMBER)], "does not end"),
        ([jump("eq", 1, 0, 1), answer(ALLOW)], "jumps out of itself"),
        ([jump("eq", 1, 255, 0), answer(ALLOW)], "jumps out of itself"),
        ([go(1), answer(ALLOW)], "jumps out of itself"),
        ([go(TOP), answer(ALLOW)], "jumps out of itself"),
        ([load(3), answer(ALLOW)], "reads beyond a system call"),
        ([load(64), answer(ALLOW)], "reads beyond a system call"),
        ([(0x28, 0, 0, 0), answer(ALLOW)], "has an instruction 0x28"),
        ([(0x30, 0, 0, 0), answer(ALLOW)], "has an instruction 0x30"),
        ([(0xFFFF, 0, 0, 0), answer(ALLOW)], "has an instruction 0xffff"),
    ],
)
def test_program_that_no_kernel_takes(instructions: list[Instruction], says: str) -> None:
    with pytest.raises(CheckpointInvalid, match=says) as caught:
        read_filter(program(*instructions))
    assert caught.value.reason == "ImageDamaged"


def test_longest_program_is_judged() -> None:
    assert allowed(read(*[load(NUMBER)] * 4095, answer(ERRNO))) == []


def test_program_with_too_many_ways_is_refused_soon() -> None:
    """Every comparison doubles them."""
    ways = [
        each
        for number in range(1000)
        for each in (load(NUMBER), jump("ge", number * 7919 % 65536, 1, 0), load(ARGUMENT))
    ]
    with pytest.raises(CheckpointInvalid, match="takes too many ways to be judged"):
        read(*ways, answer(ALLOW))


def test_program_that_names_too_many_architectures_is_refused_soon() -> None:
    """Each alone is quickly judged."""
    names = [jump("eq", number, 0, 0) for number in range(4000)]
    with pytest.raises(CheckpointInvalid, match="takes too many ways to be judged"):
        read(load(ARCHITECTURE), *names, answer(ALLOW))


# ---- sets of numbers ----


def numbers(intervals: list[Interval]) -> set[int]:
    return {number for low, high in intervals for number in range(low, high + 1)}


def some_numbers(chance: random.Random) -> set[int]:
    return {number for number in range(40) if chance.random() < 0.5}


@pytest.mark.parametrize("seed", range(50))
def test_what_both_or_only_one_have_is_that_of_sets(seed: int) -> None:
    chance = random.Random(seed)
    one, other = some_numbers(chance), some_numbers(chance)
    ours, theirs = ([*union([], [(number, number) for number in each])] for each in (one, other))
    assert numbers(intersection(ours, theirs)) == one & other
    assert numbers(minus(ours, theirs)) == one - other


class Counted(list[Interval]):
    """Counts how often one of its intervals is looked at."""

    looks = 0

    def __getitem__(self, at: Any) -> Any:
        self.looks += 1
        return super().__getitem__(at)

    def __iter__(self) -> Iterator[Interval]:
        for each in super().__iter__():
            self.looks += 1
            yield each


@pytest.mark.parametrize("combine", [intersection, minus])
def test_thousands_of_intervals_are_each_looked_at_a_few_times(combine: Any) -> None:
    allowed, denied = ([(number, number) for number in range(start, 4000, 2)] for start in (0, 1))
    counted = Counted(denied)
    combine(allowed, counted)
    assert counted.looks <= 3 * len(denied)
