"""What came of one mutation: refused, without effect, or an effect that the table of rules allows or does not."""

from __future__ import annotations

import enum
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from shared.errors import RestoreError
from shared.judge.rules import Fields, Kind, Rule
from tests.hostile.generator.difference import Change, Written, changes, content, differing
from tests.hostile.generator.edits import Edit, FieldName, Forged
from tests.hostile.generator.sample import InMemory, Sample

SECONDS_MAX: Final = 20.0
"""For one mutation; judging an honest dump takes some milliseconds."""
Judge = Callable[[Sample, InMemory], Written]
"""What the daemon does with a checkpoint for the sample's pod; raises RestoreError."""


class Verdict(enum.IntEnum):
    """From the best to the worst; of several changes the worst counts."""

    REFUSED = enum.auto()
    SAME = enum.auto()
    FREE = enum.auto()
    """Only fields that the table calls free differ."""
    WITHIN = enum.auto()
    """Fields with bounds differ, and the bounds that the table itself has are kept."""
    COMPARED = enum.auto()
    """Fields differ whose bounds a module keeps by comparing: for a reader to look at."""
    HARMFUL = enum.auto()


@dataclass(frozen=True, slots=True)
class Outcome:
    verdict: Verdict
    why: str = ""
    """Code of the refusal, or what is harmful."""
    changed: tuple[str, ...] = ()
    """Fields that a reader looks at, with how they differ."""


@dataclass
class Twin:
    """An honest checkpoint and what CRIU gets of it."""

    sample: Sample
    written: Written
    files: InMemory
    _contents: dict[str, bytes | None] = field(default_factory=dict)

    @classmethod
    def of(cls, sample: Sample, judge: Judge) -> Twin:
        files = InMemory(sample.files)
        return cls(sample, judge(sample, files), files)

    def content(self, name: str) -> bytes | None:
        if name not in self._contents:
            self._contents[name] = content(self.written.get(name), self.files)
        return self._contents[name]


def outcome(twin: Twin, edits: Sequence[Edit], forged: Forged, judge: Judge, rules: Fields) -> Outcome:
    """Judges the forged checkpoint, and holds what CRIU would get of it against what it gets of the honest one."""
    files = InMemory(twin.sample.files, forged.files)
    try:
        with _in_time():
            written = judge(twin.sample, files)
    except RestoreError as error:
        return Outcome(Verdict.REFUSED, error.reason)
    except _TooLong:
        return Outcome(Verdict.HARMFUL, f"takes more than {SECONDS_MAX} s")
    except Exception as error:
        return Outcome(Verdict.HARMFUL, f"raises {type(error).__name__}: {error}")
    names = differing(twin.written, written, forged.files)
    found = [each for name in names for each in changes(name, twin.content(name), content(written.get(name), files))]
    return explained(found, edits, forged.touched, rules)


def explained(found: Sequence[Change], edits: Sequence[Edit], touched: frozenset[FieldName], rules: Fields) -> Outcome:
    """Whether the rules allow these changes of what CRIU gets, where these fields of the checkpoint were changed."""
    if not found:
        return Outcome(Verdict.SAME)
    judged = [(_verdict(change, touched, rules), change) for change in found]
    worst = max(verdict for verdict, _ in judged)
    if worst is Verdict.HARMFUL:
        return Outcome(worst, ", ".join(sorted({str(change) for verdict, change in judged if verdict is worst})))
    spread = Counter(change for change in found if change.kind == "changed")
    many = [change for change, count in spread.items() if count > len(edits)]
    if many and all(each.how in ("set", "append") for each in edits):
        return Outcome(Verdict.HARMFUL, f"{many[0]} in {spread[many[0]]} places, by {len(edits)} edits")
    looked_at = sorted({str(change) for verdict, change in judged if verdict is Verdict.COMPARED})
    return Outcome(worst, changed=tuple(looked_at))


def _verdict(change: Change, touched: frozenset[FieldName], rules: Fields) -> Verdict:
    if change.kind in ("raw", "order") or change.field == "file":
        return Verdict.COMPARED
    rule: Rule | None = rules.get(change.message, {}).get(change.field)
    if change.kind == "omitted":
        # CRIU gets less: what nothing that is left refers to is not written.
        return Verdict.COMPARED if rule is not None else Verdict.HARMFUL
    own = (change.message, change.field) in touched
    if rule is None:
        return Verdict.HARMFUL
    if rule.kind is Kind.DERIVED:
        # From another field, or in a message that was not there at all.
        return Verdict.COMPARED if change.kind == "added" or not own else Verdict.HARMFUL
    if change.kind == "added" and own and rule.kind in (Kind.EQUAL, Kind.DEFAULT):
        return Verdict.COMPARED
    if not own or rule.kind in (Kind.EQUAL, Kind.DEFAULT):
        return Verdict.HARMFUL
    if rule.kind is Kind.FREE:
        return Verdict.FREE
    return Verdict.COMPARED if rule.allowed is None else Verdict.WITHIN


class _TooLong(BaseException):
    """Not an Exception, so that no reader takes it for a damaged image."""


@contextmanager
def _in_time() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_MAX)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def ruled(rules: Fields, every: frozenset[FieldName]) -> int:
    """How many fields of the format have a rule."""
    return sum(field in rules.get(message, {}) for message, field in every)
