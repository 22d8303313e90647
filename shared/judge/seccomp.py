"""Whether a checkpoint's seccomp filters allow what the live pod's profile does not.

Compared by what they let pass, not byte by byte: libseccomp writes another program in each version. A system call that
the profile allows for some arguments only must depend on arguments in the checkpoint too; on which, is not compared.
Sources: runtime-spec config-linux.md (Seccomp), libseccomp seccomp_arch_add(3), seccomp_rule_add(3), linux
kernel/seccomp.c (seccomp_attach_filter), CRIU criu/seccomp.c (a filter of its own for every process).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from shared.criu.dump import SeccompFilter
from shared.judge.seccomp_program import Answers, Interval, damaged, intersection, minus, read_filter, union
from shared.judge.syscalls import NUMBERS, X32_BIT
from shared.spec import SeccompProfile, SeccompRule

_INSTRUCTION_BYTES = 8
CHAIN_INSTRUCTIONS_MAX = 32_768
"""kernel/seccomp.c, MAX_INSNS_PER_PATH; each filter counts for four more."""
WORK_MAX = 2_000_000
"""Steps of all programs of a dump, and _LINK_STEPS for each link of each chain. A program of runc's default profile
takes some ten thousand, once."""
_LINK_STEPS = 1000
_ALLOWING = frozenset({"SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY"})


@dataclass(frozen=True)
class Allowed:
    """What a profile lets pass under one architecture of the kernel."""

    always: tuple[Interval, ...]
    sometimes: tuple[Interval, ...]
    """With some arguments only."""
    names: dict[int, str]


class Chains:
    """A dump's filters, each with those before it; tells which are the same, and how much work all of them are."""

    def __init__(self, filters: Sequence[SeccompFilter]) -> None:
        self._filters = filters
        self._programs: dict[bytes, int] = {}
        self._known: dict[tuple[int, int], int] = {}
        """Number of a chain by its last program and the chain before that; 0 is the empty one."""
        self._numbers: dict[int, int] = {}
        """Number of the chain that ends with each filter."""
        self._new: set[int] = set()
        self._links: list[int] = [0]
        self._instructions: list[int] = [0]
        self._work = 0

    def is_new(self, last: int) -> bool:
        """Whether no chain of the same programs was asked for before.

        Raises CheckpointInvalid("ImageDamaged") for one that is longer than the kernel takes, and for too much work.
        """
        number = self._number(last)
        if number in self._new:
            return False
        self._new.add(number)
        self._spend(self._links[number] * _LINK_STEPS)
        return True

    def _number(self, last: int) -> int:
        waiting = []
        index: int | None = last
        while index is not None and index not in self._numbers:
            waiting.append(index)
            index = self._filters[index].previous
        number = 0 if index is None else self._numbers[index]
        for index in reversed(waiting):
            number = self._numbers[index] = self._extended(number, self._filters[index].program)
        return number

    def _extended(self, before: int, program: bytes) -> int:
        if program not in self._programs:
            self._programs[program] = len(self._programs)
            self._spend(read_filter(program).steps)
        key = self._programs[program], before
        if key not in self._known:
            length = self._instructions[before] + len(program) // _INSTRUCTION_BYTES + 4
            if length > CHAIN_INSTRUCTIONS_MAX:
                raise damaged("has more before it than a kernel takes")
            self._links.append(self._links[before] + 1)
            self._instructions.append(length)
            self._known[key] = len(self._links) - 1
        return self._known[key]

    def _spend(self, steps: int) -> None:
        self._work += steps
        if self._work > WORK_MAX:
            raise damaged("is one of too many to be judged")


def exceeding(filters: Sequence[SeccompFilter], last: int, profile: SeccompProfile) -> Iterator[str]:
    """Names of system calls that the chain of filters ending with ``last`` allows beyond the profile, a few at most.

    Raises CheckpointInvalid("ImageDamaged") for filters that cannot be judged. The chain is known to be sound.
    """
    chain = []
    index: int | None = last
    while index is not None:
        chain.append(read_filter(filters[index].program))
        index = filters[index].previous
    known_to = granted(profile)
    # Of the 32-bit ARM below aarch64, ppc64 and others there is no table here: what a filter does there is not judged.
    unknown = any(name not in NUMBERS for name in profile.architectures)
    named = {architecture for each in chain for architecture in each.by_architecture if architecture is not None}
    for architecture in sorted({*named, *known_to}):
        whole = Answers([(0, 0xFFFFFFFF)], [])
        for each in chain:
            answers = each.answers(architecture)
            whole = Answers(intersection(whole.allowed, answers.allowed), union(whole.denied, answers.denied))
        known = known_to.get(architecture)
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
def granted(profile: SeccompProfile) -> dict[int, Allowed]:
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
