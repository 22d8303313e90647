"""Filters against profiles: the runtimes' real default profiles with the programs they became, and what differs."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from shared.criu.dump import SeccompFilter
from shared.errors import CheckpointInvalid
from shared.judge import seccomp
from shared.judge.seccomp import CHAIN_INSTRUCTIONS_MAX, Chains, exceeding
from shared.spec import SeccompProfile, SeccompRule, parse_spec
from tests.support.bpf import (
    ALLOW,
    ARCHITECTURE,
    ERRNO,
    I386,
    KILL_PROCESS,
    NUMBER,
    X86_64,
    Instruction,
    answer,
    for_x86_64,
    jump,
    load,
    program,
)

DATA = Path(__file__).parents[3] / "data/seccomp"
ENGINES = ("containerd-1.7.24", "containerd-2.1.9")
"""RuntimeDefault in a container of that version: the profile in config.json, and the program in CRIU's dump of it."""


@dataclass(frozen=True)
class Real:
    profile: SeccompProfile
    filters: tuple[SeccompFilter, ...]


def profile_of(section: dict[str, Any]) -> SeccompProfile:
    profile = parse_spec(json.dumps({"linux": {"seccomp": section}}).encode(), file="config.json").seccomp_profile
    assert profile is not None
    return profile


def real(engine: str) -> Real:
    document = json.loads((DATA / f"{engine}.json").read_text())
    code = zlib.decompress(base64.b64decode(document["program"]))
    return Real(profile_of(document["profile"]), (SeccompFilter(code, None),))


def without(profile: SeccompProfile, name: str) -> SeccompProfile:
    rules = (replace(rule, names=tuple(each for each in rule.names if each != name)) for rule in profile.rules)
    return replace(profile, rules=tuple(rules))


@pytest.fixture(params=ENGINES)
def default(request: pytest.FixtureRequest) -> Real:
    return real(request.param)


def test_real_default_profile_allows_what_its_program_does(default: Real) -> None:
    assert list(exceeding(default.filters, 0, default.profile)) == []


@pytest.mark.parametrize("name", ["read", "clone", "execve", "socket", "personality", "clock_settime64"])
def test_real_program_exceeds_a_profile_without_one_of_its_calls(default: Real, name: str) -> None:
    more = set(exceeding(default.filters, 0, without(default.profile, name)))
    assert more == ({name} if any(name in rule.names for rule in default.profile.rules) else set())


def test_real_program_exceeds_a_profile_that_allows_a_call_for_some_arguments_only(default: Real) -> None:
    """``ptrace`` is allowed always, from Linux 4.8 on."""
    conditional = SeccompRule(("ptrace",), "SCMP_ACT_ALLOW", conditional=True)
    profile = without(default.profile, "ptrace")
    assert set(exceeding(default.filters, 0, replace(profile, rules=(*profile.rules, conditional)))) == {"ptrace"}


def test_real_program_exceeds_a_profile_of_one_architecture(default: Real) -> None:
    profile = replace(default.profile, architectures=("SCMP_ARCH_X86_64",))
    more = list(exceeding(default.filters, 0, profile))
    assert f"all of the architecture {I386:#x}" in more


def test_older_and_newer_engine_differ_by_what_they_name(default: Real) -> None:
    """A checkpoint of one engine on a node of the other: only what it really allows beyond."""
    other = real(next(engine for engine in ENGINES if real(engine) != default))
    names = {name for rule in default.profile.rules for name in rule.names}
    theirs = {name for rule in other.profile.rules for name in rule.names}
    assert set(exceeding(default.filters, 0, other.profile)) <= names - theirs


# ---- small profiles ----

ONE = SeccompProfile("SCMP_ACT_ERRNO", ("SCMP_ARCH_X86_64",), (SeccompRule(("read",), "SCMP_ACT_ALLOW", False),))
SOME = replace(ONE, rules=(SeccompRule(("read",), "SCMP_ACT_ALLOW", conditional=True),))
OPEN = SeccompProfile("SCMP_ACT_ALLOW", ("SCMP_ARCH_X86_64",), (SeccompRule(("mount",), "SCMP_ACT_ERRNO", False),))
READ, WRITE, MOUNT = 0, 1, 165


def allowing(*numbers: int) -> bytes:
    return for_x86_64(
        *[each for number in numbers for each in (jump("eq", number, 0, 1), answer(ALLOW))], answer(ERRNO)
    )


def filters(*programs: bytes) -> list[SeccompFilter]:
    """A chain, the last filter last."""
    return [SeccompFilter(code, index - 1 if index else None) for index, code in enumerate(programs)]


def more(profile: SeccompProfile, *programs: bytes) -> list[str]:
    return list(exceeding(filters(*programs), len(programs) - 1, profile))


def test_calls_beyond_the_profile_are_named() -> None:
    assert more(ONE, allowing(READ)) == []
    assert more(ONE, allowing(READ, WRITE, MOUNT)) == ["write", "mount"]
    assert more(ONE, allowing(9999)) == ["number 9999"]
    assert more(ONE, for_x86_64(jump("ge", 7000, 0, 1), answer(ALLOW), answer(ERRNO))) == ["numbers 7000 to 4294967295"]


def test_chain_allows_what_all_of_its_filters_do() -> None:
    assert more(ONE, allowing(READ, WRITE), allowing(READ, MOUNT)) == []
    assert more(ONE, allowing(READ, WRITE), allowing(WRITE, MOUNT)) == ["write"]


def test_only_filters_before_it_belong_to_a_chain() -> None:
    chain = filters(allowing(READ, WRITE), allowing(READ))
    assert list(exceeding(chain, 0, ONE)) == ["write"]
    assert list(exceeding(chain, 1, ONE)) == []


def test_call_that_the_profile_allows_for_some_arguments_must_depend_on_them() -> None:
    conditional = for_x86_64(jump("eq", READ, 0, 3), load(16), jump("eq", 8, 0, 1), answer(ALLOW), answer(ERRNO))
    assert more(SOME, conditional) == []
    assert more(SOME, allowing(READ)) == ["read"]


def test_profile_that_allows_by_default_denies_what_it_names() -> None:
    assert more(OPEN, for_x86_64(jump("eq", MOUNT, 0, 1), answer(ERRNO), answer(ALLOW)))[:1] != ["mount"]
    assert "mount" in more(OPEN, for_x86_64(answer(ALLOW)))


def test_architecture_that_the_profile_does_not_have() -> None:
    both: Sequence[Instruction] = (
        load(ARCHITECTURE), jump("eq", X86_64, 2, 0), jump("eq", I386, 0, 3), answer(ALLOW),
        load(NUMBER), jump("eq", READ, 2, 0), answer(KILL_PROCESS), answer(KILL_PROCESS), answer(ALLOW),
    )  # fmt: skip
    assert more(ONE, program(*both)) == [f"all of the architecture {I386:#x}"]
    assert "any of an architecture that the profile does not have" in more(ONE, program(answer(ALLOW)))


def test_what_a_profile_with_an_unknown_architecture_allows_there_is_not_judged() -> None:
    arm = replace(ONE, architectures=("SCMP_ARCH_X86_64", "SCMP_ARCH_ARM"))
    code = program(load(ARCHITECTURE), jump("eq", 0x40000028, 0, 1), answer(ALLOW), answer(ERRNO))
    assert more(arm, code) == []
    assert more(ONE, code) == ["all of the architecture 0x40000028"]


# ---- many filters ----


def test_chains_of_the_same_programs_are_one() -> None:
    """CRIU writes a filter of its own for every process."""
    one, two = allowing(READ), allowing(WRITE)
    chains = Chains(
        [
            SeccompFilter(one, None),
            SeccompFilter(bytes(bytearray(one)), None),
            SeccompFilter(two, 0),
            SeccompFilter(two, 1),
        ]
    )
    assert [chains.is_new(index) for index in range(4)] == [True, False, True, False]


def test_same_program_after_another_one_is_another_chain() -> None:
    one, two = allowing(READ), allowing(WRITE)
    chains = Chains(filters(one, two, one))
    assert [chains.is_new(index) for index in (2, 1, 0, 0)] == [True, True, True, False]


def test_chain_that_no_kernel_takes() -> None:
    longest = program(*[load(NUMBER)] * 4091, answer(ERRNO))
    count = CHAIN_INSTRUCTIONS_MAX // 4096
    assert Chains(filters(*[longest] * count)).is_new(count - 1)
    with pytest.raises(CheckpointInvalid, match="has more before it than a kernel takes") as caught:
        Chains(filters(*[longest] * (count + 1))).is_new(count)
    assert caught.value.reason == "ImageDamaged"


def test_too_many_different_programs_are_refused_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "WORK_MAX", 20_000)
    chains = Chains([SeccompFilter(allowing(number), None) for number in range(30)])
    with pytest.raises(CheckpointInvalid, match="is one of too many to be judged"):
        for index in range(30):
            chains.is_new(index)


def test_too_many_links_are_refused_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "WORK_MAX", 20_000)
    chains = Chains(filters(*[allowing(READ)] * 30))
    with pytest.raises(CheckpointInvalid, match="is one of too many to be judged"):
        chains.is_new(29)
