from __future__ import annotations

import random
import struct

import pytest

from shared.elf import HEAD_BYTES, NOTES_MAX, read_elf
from tests.support.elf import AARCH64, NT_BUILD_ID, NT_PROPERTIES, elf, isa_needed, note

BUILD_ID = bytes(range(20))


def test_machine_and_build_id_are_read_from_the_first_bytes_alone() -> None:
    whole = elf([note(NT_BUILD_ID, BUILD_ID)], size=4 << 20)

    facts = read_elf(whole[:4096])

    assert facts is not None
    assert (facts.machine, facts.bits, facts.build_id, facts.isa_level) == ("x86_64", 64, BUILD_ID.hex(), None)


@pytest.mark.parametrize(
    ("bits", "level"),
    [(1, "x86-64"), (3, "x86-64-v2"), (7, "x86-64-v3"), (4, "x86-64-v3"), (15, "x86-64-v4"), (31, "x86-64-v4")],
)
def test_highest_level_needed_decides(bits: int, level: str) -> None:
    facts = read_elf(elf([isa_needed(bits)]))
    assert facts is not None
    assert facts.isa_level == level


def test_level_is_found_behind_another_property() -> None:
    cet = struct.pack("<4I", 0xC0000002, 4, 3, 0)
    facts = read_elf(elf([note(NT_PROPERTIES, cet + struct.pack("<4I", 0xC0008002, 4, 7, 0))]))
    assert facts is not None
    assert facts.isa_level == "x86-64-v3"


def test_level_of_another_machine_means_nothing() -> None:
    facts = read_elf(elf([isa_needed(7), note(NT_BUILD_ID, BUILD_ID)], machine=AARCH64))
    assert facts is not None
    assert (facts.machine, facts.build_id, facts.isa_level) == ("aarch64", BUILD_ID.hex(), None)


def test_machine_without_a_name_is_unknown() -> None:
    facts = read_elf(elf(machine=12345))
    assert facts is not None
    assert facts.machine == "unknown"


def test_build_id_of_someone_else_is_no_build_id() -> None:
    facts = read_elf(elf([note(NT_BUILD_ID, BUILD_ID, name=b"Go\0\0")]))
    assert facts is not None
    assert facts.build_id is None


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF" + bytes(60), bytes(64)])
def test_what_is_no_elf_file_is_nothing(content: bytes) -> None:
    assert read_elf(content) is None


def test_python_itself_has_a_machine(request: pytest.FixtureRequest) -> None:
    import platform
    import sys
    from pathlib import Path

    facts = read_elf(Path(sys.executable).resolve().read_bytes()[:HEAD_BYTES])

    assert facts is not None
    assert facts.machine == platform.machine()


def test_note_beyond_the_bytes_given_is_unknown() -> None:
    whole = elf([note(NT_BUILD_ID, BUILD_ID)])
    facts = read_elf(whole[:-12])
    assert facts is None or facts.build_id is None


def test_note_beyond_the_bytes_given_hides_none_before_it() -> None:
    notes = [note(NT_BUILD_ID, BUILD_ID), note(NT_PROPERTIES, bytes(16))]
    facts = read_elf(elf(notes)[: -len(notes[1])])
    assert facts is not None
    assert facts.build_id == BUILD_ID.hex()


def test_huge_note_is_not_read() -> None:
    facts = read_elf(elf([note(NT_BUILD_ID, bytes(20 << 10))]))
    assert facts is not None
    assert facts.build_id is None


def test_endless_notes_are_given_up() -> None:
    assert read_elf(elf([note(9, b"") * (NOTES_MAX + 1)])) is None


def test_endless_segments_are_given_up() -> None:
    image = bytearray(elf([note(NT_BUILD_ID, BUILD_ID)]))
    struct.pack_into("<H", image, 0x38, 60_000)
    assert read_elf(bytes(image)) is None


def test_no_damage_raises_anything() -> None:
    chance = random.Random(7)
    sound = elf([note(NT_BUILD_ID, BUILD_ID), isa_needed(7)])
    for _ in range(2000):
        image = bytearray(sound)
        for _ in range(chance.randint(1, 6)):
            image[chance.randrange(4, len(image))] = chance.randrange(256)
        facts = read_elf(bytes(image[: chance.randint(52, len(image))]))
        assert facts is None or facts.bits in (32, 64)
