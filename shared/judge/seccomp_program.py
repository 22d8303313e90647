"""What a seccomp filter may allow: every path through its BPF program, for all system calls at once.

The programs come from the checkpoint, so they are never run on a guess: whatever depends on the call's arguments is
taken to go both ways. What is found is thus never less than what the kernel would allow.
Sources: seccomp(2), linux/filter.h, linux/seccomp.h, kernel/seccomp.c (seccomp_check_filter: which instructions).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from shared.errors import CheckpointInvalid

NUMBER_MAX: Final = 0xFFFFFFFF
STEPS_MAX: Final = 100_000
"""For all architectures of a filter; one of runc's default profile takes some three thousand for each."""
INSTRUCTIONS_MAX: Final = 4096
"""linux/bpf_common.h, BPF_MAXINSNS."""
_ALLOWING: Final = 0x7FC00000
"""SECCOMP_RET_USER_NOTIF, _TRACE, _LOG and _ALLOW; what is below answers with an error or a signal."""
_ACTION: Final = 0xFFFF0000
_LOAD, _LOAD_IMMEDIATE, _LOAD_SIZE, _LOAD_MEMORY = 0x20, 0x00, 0x80, 0x60
_JUMP, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL, _JUMP_SET = 0x05, 0x15, 0x25, 0x35, 0x45
_RETURN, _RETURN_A = 0x06, 0x16
_JUMPS_X: Final = (0x1D, 0x2D, 0x3D, 0x4D)
_OTHERS: Final = frozenset({
    0x01, 0x61, 0x81, 0x02, 0x03, 0x07, 0x87,
    0x04, 0x0C, 0x14, 0x1C, 0x24, 0x2C, 0x34, 0x3C, 0x44, 0x4C, 0x54, 0x5C, 0x64, 0x6C, 0x74, 0x7C, 0x84, 0xA4, 0xAC,
})  # fmt: skip
"""Loads of X, stores, moves and arithmetic: after them A is anything."""
_KEEP_A: Final = frozenset({0x01, 0x61, 0x81, 0x02, 0x03, 0x07})
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
_INSTRUCTION: Final = struct.Struct("<HBBI")

Interval = tuple[int, int]


@dataclass
class Answers:
    """System call numbers of one architecture, as sorted intervals."""

    allowed: list[Interval] = field(default_factory=list)
    """That some path allows."""
    denied: list[Interval] = field(default_factory=list)
    """That some path denies; what is in both depends on the arguments."""


@dataclass(frozen=True)
class Filter:
    """The answers by AUDIT_ARCH_… number; None stands for every architecture the program does not name."""

    by_architecture: dict[int | None, Answers]
    steps: int
    """That judging it took."""

    def answers(self, architecture: int) -> Answers:
        return self.by_architecture.get(architecture) or self.by_architecture.get(None) or Answers()


@lru_cache(maxsize=64)
def read_filter(program: bytes) -> Filter:
    """Raises CheckpointInvalid("ImageDamaged") for a program that no kernel takes, or that is too large to judge."""
    instructions = list(_INSTRUCTION.iter_unpack(program))
    _check(instructions)
    architectures = _architectures(instructions)
    found: dict[int | None, Answers] = {}
    steps = 0
    for architecture in (*architectures, None):
        answers = found[architecture] = Answers()
        steps = _walk(instructions, architecture, architectures, answers, steps)
        answers.allowed, answers.denied = _joined(answers.allowed), _joined(answers.denied)
    return Filter(found, steps)


def _check(instructions: Sequence[tuple[int, int, int, int]]) -> None:
    if not 0 < len(instructions) <= INSTRUCTIONS_MAX:
        raise damaged("is empty or too long")
    last = len(instructions) - 1
    for at, (code, yes, no, value) in enumerate(instructions):
        if code in (_JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL, _JUMP_SET, *_JUMPS_X):
            if at + 1 + max(yes, no) > last:
                raise damaged("jumps out of itself")
        elif code == _JUMP:
            if at + 1 + value > last:
                raise damaged("jumps out of itself")
        elif code == _LOAD:
            if value % 4 or value >= 64:
                raise damaged("reads beyond a system call")
        elif code not in (_LOAD_IMMEDIATE, _LOAD_SIZE, _LOAD_MEMORY, _RETURN, _RETURN_A) and code not in _OTHERS:
            raise damaged(f"has an instruction {code:#x} that no kernel takes")
    if instructions[-1][0] not in (_RETURN, _RETURN_A):
        raise damaged("does not end")


def _architectures(instructions: Sequence[tuple[int, int, int, int]]) -> tuple[int, ...]:
    """Every number that the program compares with while the architecture may be at hand."""
    found: dict[int, None] = {}
    loaded = False
    for code, _, _, value in instructions:
        if code == _LOAD:
            loaded = value == _ARCHITECTURE_AT
        elif loaded and code == _JUMP_EQUAL:
            found[value] = None
    return tuple(found)


_Anything, _Number, _Architecture = "anything", "number", "architecture"


def _walk(
    instructions: Sequence[tuple[int, int, int, int]],
    architecture: int | None,
    named: Sequence[int],
    answers: Answers,
    steps: int,
) -> int:
    """Depth first over (where, what A is, numbers), each state once; returns ``steps`` and those it took itself."""
    waiting: list[tuple[int, str, int, int]] = [(0, _Anything, 0, NUMBER_MAX)]
    seen: set[tuple[int, str, int, int]] = set()
    while waiting:
        state = waiting.pop()
        if state in seen:
            continue
        seen.add(state)
        at, held, low, high = state
        while True:
            steps += 1
            if steps > STEPS_MAX:
                raise damaged("takes too many ways to be judged")
            code, yes, no, value = instructions[at]
            at += 1
            if code in (_RETURN, _RETURN_A):
                allows = code == _RETURN_A or (value & _ACTION) in range(_ALLOWING, 0x80000000)
                (answers.allowed if allows else answers.denied).append((low, high))
                break
            if code == _LOAD:
                held = {_NUMBER_AT: _Number, _ARCHITECTURE_AT: _Architecture}.get(value, _Anything)
            elif code == _JUMP:
                at += value
            elif code in (_JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL, _JUMP_SET, *_JUMPS_X):
                if held == _Architecture and code == _JUMP_EQUAL and (architecture is not None or value in named):
                    at += yes if value == architecture else no
                    continue
                numbers = [(low, high, True), (low, high, False)]
                if held == _Number:
                    numbers = list(_split(code, value, low, high))
                for first, last, taken in numbers:
                    waiting.append((at + (yes if taken else no), held, first, last))
                break
            elif code not in _KEEP_A:
                held = _Anything
    return steps


def _split(code: int, value: int, low: int, high: int) -> Iterable[tuple[int, int, bool]]:
    """Which numbers take a jump on the number, and which do not."""
    if code == _JUMP_EQUAL:
        pieces = [(low, value - 1, False), (value, value, True), (value + 1, high, False)]
    elif code in (_JUMP_GREATER, _JUMP_GREATER_EQUAL):
        border = value + (code == _JUMP_GREATER)
        pieces = [(low, border - 1, False), (border, high, True)]
    elif code == _JUMP_SET and value in (0x40000000, 0x80000000):
        pieces = []
        for start in range(0, NUMBER_MAX, value):
            pieces.append((start, start + value - 1, bool(start & value)))
    else:
        pieces = [(low, high, True), (low, high, False)]
    for first, last, taken in pieces:
        first, last = max(first, low), min(last, high)
        if first <= last:
            yield first, last, taken


def _joined(intervals: Iterable[Interval]) -> list[Interval]:
    found: list[Interval] = []
    for low, high in sorted(intervals):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return found


# Of sorted intervals apart from each other, in time proportional to how many there are: a checkpoint's programs have
# thousands, and are judged for each chain they are in.


def intersection(one: Sequence[Interval], other: Sequence[Interval]) -> list[Interval]:
    """The numbers that both have."""
    found = []
    left = right = 0
    while left < len(one) and right < len(other):
        (first, last), (low, high) = one[left], other[right]
        if max(first, low) <= min(last, high):
            found.append((max(first, low), min(last, high)))
        if last < high:
            left += 1
        else:
            right += 1
    return found


def minus(one: Sequence[Interval], other: Sequence[Interval]) -> list[Interval]:
    """The numbers of ``one`` that ``other`` does not have."""
    found = []
    at = 0
    for low, high in one:
        while at < len(other):
            first, last = other[at]
            if first > high:
                break
            if first > low:
                found.append((low, first - 1))
            low = max(low, last + 1)
            if last > high:
                break
            at += 1
        if low <= high:
            found.append((low, high))
    return found


def union(one: Sequence[Interval], other: Sequence[Interval]) -> list[Interval]:
    return _joined([*one, *other])


def damaged(why: str) -> CheckpointInvalid:
    return CheckpointInvalid("ImageDamaged", f"a seccomp filter of the checkpoint {why}")
