"""What a container brings along as code: seccomp filters, ELF files, and its runtime spec."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from itertools import pairwise

from shared.criu.dump import SeccompFilter
from shared.elf import read_elf
from shared.json_object import JsonObject, parse_json
from shared.judge.seccomp import exceeding
from shared.judge.seccomp_program import read_filter
from shared.spec import parse_spec
from tests.fuzz.target import Target
from tests.support.checkpoints import runtime_spec
from tests.support.elf import elf, isa_needed, note

PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    "syscalls": [
        {"names": ["read", "write", "socket"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
    ],
}
ALLOW, ERRNO = 0x7FFF0000, 0x00050001


def _filter(content: bytes) -> None:
    found = read_filter(content[: len(content) // 8 * 8])  # read_filters has refused any other length
    for architecture in (0xC000003E, 0x40000003, 0xC00000B7, 7):
        answers = found.answers(architecture)
        for intervals in (answers.allowed, answers.denied):
            assert all(low <= high for low, high in intervals)
            assert all(one[1] < other[0] for one, other in pairwise(intervals))


def _filter_seeds() -> Iterator[bytes]:
    load, equal, greater, masked, jump, back = 0x20, 0x15, 0x25, 0x54, 0x05, 0x06
    for program in (
        [(back, 0, 0, ALLOW)],
        [(load, 0, 0, 4), (equal, 1, 0, 0xC000003E), (back, 0, 0, ERRNO), (load, 0, 0, 0), (greater, 0, 1, 300),
         (back, 0, 0, ERRNO), (back, 0, 0, ALLOW)],
        [(load, 0, 0, 16), (masked, 0, 0, 0x7F), (equal, 0, 1, 1), (jump, 0, 0, 0), (back, 0, 0, ALLOW)],
    ):  # fmt: skip
        yield b"".join(struct.pack("<HBBI", *each) for each in program)


def _chain(content: bytes) -> None:
    """Several filters, cut at their lengths, over a profile."""
    profile = parse_spec(json.dumps(runtime_spec(linux={"seccomp": PROFILE})).encode(), file="spec").seccomp_profile
    assert profile is not None
    filters = []
    while content:
        size = 8 * (1 + content[0] % 32)
        program = content[1 : 1 + size]
        if len(program) % 8 == 0 and program:
            filters.append(SeccompFilter(program, len(filters) - 1 if filters else None))
        content = content[1 + size :]
    if filters:
        list(exceeding(filters, len(filters) - 1, profile))


def _chain_seeds() -> Iterator[bytes]:
    programs = list(_filter_seeds())
    yield b"".join(bytes([len(program) // 8 - 1]) + program for program in programs)


def _elf(content: bytes) -> None:
    found = read_elf(content)
    assert found is None or found.bits in (32, 64)


def _elf_seeds() -> Iterator[bytes]:
    yield elf()
    yield elf([note(3, b"\1" * 20), note(5, isa_needed(7))])


TARGETS = (
    Target("seccomp-filter", _filter, _filter_seeds),
    Target("seccomp-chain", _chain, _chain_seeds),
    Target("elf", _elf, _elf_seeds, ()),
    Target(
        "runtime-spec",
        lambda content: parse_spec(content, file="spec.dump"),
        lambda: [json.dumps(runtime_spec()).encode()],
    ),
    Target(
        "json",
        lambda content: JsonObject(parse_json(content, "x.json"), "x.json").text_map("a"),
        lambda: [b'{"a":{"b":"\\u00e9"}}', b"[" * 60_000],
    ),
)
