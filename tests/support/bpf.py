"""Classic BPF assembled by hand, as seccomp filters are made of. Sources: linux/filter.h, seccomp.h and audit.h."""

from __future__ import annotations

import struct

X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
X32_BIT = 0x40000000
TOP = 0xFFFFFFFF
ALLOW, LOG, TRACE, NOTIFY = 0x7FFF0000, 0x7FFC0000, 0x7FF00000, 0x7FC00000
ERRNO, TRAP, KILL_THREAD, KILL_PROCESS = 0x00050001, 0x00030000, 0x00000000, 0x80000000
NUMBER, ARCHITECTURE, ARGUMENT = 0, 4, 16
"""Offsets in struct seccomp_data."""

Instruction = tuple[int, int, int, int]


def load(offset: int) -> Instruction:
    return 0x20, 0, 0, offset


def jump(operation: str, value: int, yes: int = 0, no: int = 0) -> Instruction:
    return {"eq": 0x15, "gt": 0x25, "ge": 0x35, "set": 0x45}[operation], yes, no, value


def go(distance: int) -> Instruction:
    return 0x05, 0, 0, distance


def answer(value: int) -> Instruction:
    return 0x06, 0, 0, value


def program(*instructions: Instruction) -> bytes:
    return b"".join(struct.pack("<HBBI", *each) for each in instructions)


def for_x86_64(*instructions: Instruction) -> bytes:
    """As libseccomp begins: another architecture is killed."""
    return program(load(ARCHITECTURE), jump("eq", X86_64, 1, 0), answer(KILL_PROCESS), load(NUMBER), *instructions)
