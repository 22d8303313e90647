"""What a rule about one field of CRIU's images is, and what holds without the live pod.

Every field of every message (shared/criu/criu.proto) has exactly one rule, in the table of the module that knows its
danger (``FIELDS``); shared/judge/table.py joins them, and a field without a rule is an error when the table is made.
``apply`` enforces what a value alone can tell. What takes another image, the live pod or both is enforced by the module
that the rule stands in; what is derived is written by it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from shared.errors import Refused


class Kind(enum.Enum):
    """What a restore makes of a field."""

    FREE = "free"
    """It is restored as dumped: it gives the container nothing that its processes could not have by themselves."""
    BOUNDED = "bounded"
    """It is restored as dumped within bounds; anything else is refused."""
    EQUAL = "equal"
    """It must be what the live pod has; anything else is refused."""
    DERIVED = "derived"
    """It is not read for the restore: what CRIU gets follows from the live pod, or from other fields."""
    DEFAULT = "default"
    """It must be absent or have its default; anything else is refused."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule for one field."""

    kind: Kind
    why: str
    """A sentence for the reader of docs/security.md."""
    allowed: Callable[[Any], bool] | None = None
    """BOUNDED: whether one value is within bounds; None: the module compares."""
    value: object = None
    """DEFAULT: the only value beside absence; None: the default of the field's type."""


def free(why: str) -> Rule:
    return Rule(Kind.FREE, why)


def bounded(why: str, allowed: Callable[[Any], bool] | None = None) -> Rule:
    return Rule(Kind.BOUNDED, why, allowed)


def equal(why: str) -> Rule:
    return Rule(Kind.EQUAL, why)


def derived(why: str) -> Rule:
    return Rule(Kind.DERIVED, why)


def default(why: str, value: object = None) -> Rule:
    return Rule(Kind.DEFAULT, why, value=value)


Fields = Mapping[str, Mapping[str, Rule]]
"""By message and field, as criu.proto names them."""


class Rules:
    """The whole table, ready to be applied to messages."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self._looked_at: dict[str, dict[str, Rule | None]] = {
            message: {name: rule if _acts(rule) else None for name, rule in rules.items()}
            for message, rules in fields.items()
        }
        self._enters: dict[str, bool] = {}
        """Whether some rule below a message acts: most parts, such as registers, are passed over whole."""

    def apply(self, message: Message, image: str) -> None:
        """Refuses what no value of the field may be, and empties what is derived or has its default.

        Changes ``message``. Raises Refused("FieldExceeds") naming ``image``, field, value and reason.
        """
        if not self._has_acting(message.DESCRIPTOR):
            return
        looked_at = self._looked_at[message.DESCRIPTOR.name]
        for field, value in message.ListFields():
            rule = looked_at[field.name]
            if rule is not None:
                self._enforce(rule, message, field, value, image)
                if rule.kind is not Kind.BOUNDED:
                    continue
            if field.message_type is not None and self._has_acting(field.message_type):
                for part in value if field.is_repeated else (value,):
                    self.apply(part, image)

    def _has_acting(self, message: Any) -> bool:
        """``message``: its descriptor."""
        if (known := self._enters.get(message.name)) is None:
            self._enters[message.name] = False  # until it is known: a message may have parts of its own type
            known = self._enters[message.name] = any(self._looked_at[message.name].values()) or any(
                field.message_type is not None and self._has_acting(field.message_type) for field in message.fields
            )
        return known

    def _enforce(self, rule: Rule, message: Message, field: Any, value: Any, image: str) -> None:
        values = value if field.is_repeated else (value,)
        if rule.kind is Kind.BOUNDED and rule.allowed is not None:
            for each in values:
                if not rule.allowed(each):
                    raise field_refused(image, message, field.name, each, rule.why)
        elif rule.kind is Kind.DEFAULT:
            wanted = field.default_value if rule.value is None and field.message_type is None else rule.value
            for each in values:
                if field.message_type is not None or each != wanted:
                    raise field_refused(image, message, field.name, each, rule.why)
        if rule.kind in (Kind.DEFAULT, Kind.DERIVED):
            if field.is_required:
                setattr(message, field.name, field.default_value if rule.value is None else rule.value)
            else:
                message.ClearField(field.name)


def _acts(rule: Rule) -> bool:
    return rule.kind in (Kind.DEFAULT, Kind.DERIVED) or rule.allowed is not None


def field_refused(image: str, message: Message, field: str, value: object, why: str) -> Refused:
    """A Refused("FieldExceeds") for one field."""
    shown = f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 9 else repr(value)
    if isinstance(value, Message):
        shown = "a part"
    return Refused(
        "FieldExceeds",
        f"{image} has {shown[:80]} for {message.DESCRIPTOR.name}.{field}: {why.rstrip('.')}; no checkpoint of an "
        "ordinary container has that, so take a new one",
    )
