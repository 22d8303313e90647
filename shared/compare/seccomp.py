"""Whether a checkpoint's seccomp filters allow what the live pod's profile does not.

Compared by what they let pass, not byte by byte: libseccomp writes another program in each version. A system call that
the profile allows for some arguments only must depend on arguments in the checkpoint too; on which, is not compared.
Sources: runtime-spec config-linux.md (Seccomp), libseccomp seccomp_arch_add(3), seccomp_rule_add(3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from shared.compare.seccomp_program import Answers, Interval, intersection, minus, read_filter, union
from shared.compare.syscalls import NUMBERS, X32_BIT
from shared.criu.dump import SeccompFilter
from shared.spec import SeccompProfile, SeccompRule

_ALLOWING = frozenset({"SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY"})


@dataclass(frozen=True)
class Allowed:
    """What a profile lets pass under one architecture of the kernel."""

    always: tuple[Interval, ...]
    sometimes: tuple[Interval, ...]
    """With some arguments only."""
    names: dict[int, str]


def exceeding(filters: Sequence[SeccompFilter], last: int, profile: SeccompProfile) -> Iterator[str]:
    """Names of system calls that the chain of filters ending with ``last`` allows beyond the profile, a few at most.

    Raises CheckpointInvalid("ImageDamaged") for filters that cannot be judged. The chain is known to be sound.
    """
    chain = []
    index: int | None = last
    while index is not None:
        chain.append(read_filter(filters[index].program))
        index = filters[index].previous
    granted = _granted(profile)
    # Of the 32-bit ARM below aarch64, ppc64 and others there is no table here: what a filter does there is not judged.
    unknown = any(name not in NUMBERS for name in profile.architectures)
    named = {architecture for each in chain for architecture in each.by_architecture if architecture is not None}
    for architecture in sorted({*named, *granted}):
        whole = Answers([(0, 0xFFFFFFFF)], [])
        for each in chain:
            answers = each.answers(architecture)
            whole = Answers(intersection(whole.allowed, answers.allowed), union(whole.denied, answers.denied))
        known = granted.get(architecture)
        if known is None:
            if whole.allowed and not unknown:
                yield f"all of the architecture {architecture:#x}"
            continue
        more = minus(whole.allowed, union(known.always, known.sometimes))
        more += intersection(minus(whole.allowed, whole.denied), minus(known.sometimes, known.always))
        for low, high in more:
            yield known.names.get(low) or (f"number {low}" if low == high else f"numbers {low} to {high}")
    others: list[Interval] = [(0, 0xFFFFFFFF)]
    for each in chain:
        others = intersection(others, each.by_architecture[None].allowed)
    if others:
        yield "any of an architecture that the profile does not have"


@lru_cache(maxsize=16)
def _granted(profile: SeccompProfile) -> dict[int, Allowed]:
    found: dict[int, Allowed] = {}
    for name in profile.architectures or ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"):
        if name not in NUMBERS:
            continue
        architecture, numbers = NUMBERS[name]
        always, sometimes = _of_profile(profile, numbers, name)
        before = found.get(architecture)
        names = {number: word for word, number in numbers.items()}
        if before:
            always, sometimes = union(before.always, always), union(before.sometimes, sometimes)
            names |= before.names
        found[architecture] = Allowed(tuple(always), tuple(sometimes), names)
    return found


def _of_profile(
    profile: SeccompProfile, numbers: Mapping[str, int], architecture: str
) -> tuple[list[Interval], list[Interval]]:
    default = profile.default_action in _ALLOWING
    always = set(numbers.values()) if default else set()
    sometimes: set[int] = set()
    for rule in profile.rules:
        for name in rule.names:
            if (number := numbers.get(name)) is None:
                continue
            _apply(rule, number, always, sometimes)
    whole = union([], [(number, number) for number in always])
    if default:
        # What has no name here is allowed as well, and nothing is known to be denied.
        low = X32_BIT if architecture == "SCMP_ARCH_X32" else 0
        named = union([], [(number, number) for number in numbers.values()])
        whole = union(whole, minus([(low, low + X32_BIT - 1)], named))
    return whole, union([], [(number, number) for number in sometimes])


def _apply(rule: SeccompRule, number: int, always: set[int], sometimes: set[int]) -> None:
    allows = rule.action in _ALLOWING
    if allows and rule.conditional:
        sometimes.add(number)
    elif allows:
        always.add(number)
    elif rule.conditional:
        if number in always:
            always.discard(number)
            sometimes.add(number)
    else:
        always.discard(number)
        sometimes.discard(number)
