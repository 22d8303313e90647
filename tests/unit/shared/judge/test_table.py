"""Every field of CRIU's images has one rule."""

from __future__ import annotations

import pytest

from shared.judge.rules import free
from shared.judge.table import DANGERS, RULES, Danger, all_messages, joined


def test_every_field_of_every_message_has_a_rule_with_a_reason() -> None:
    assert RULES.fields.keys() == all_messages().keys()
    for name, fields in all_messages().items():
        assert set(RULES.fields[name]) == {field.name for field in fields}
        assert all(rule.why for rule in RULES.fields[name].values()), name


def without(message: str, field: str) -> list[Danger]:
    """All dangers, without the rule for one field."""
    changed = []
    for danger in DANGERS:
        fields = {name: dict(rules) for name, rules in danger.fields.items()}
        if message in fields:
            del fields[message][field]
        changed.append(Danger(danger.name, fields))
    return changed


def test_field_without_a_rule_is_named() -> None:
    with pytest.raises(ValueError, match=r"MntEntry has no rule for \['sb_flags'\]"):
        joined(without("MntEntry", "sb_flags"))


def test_message_without_rules_is_named() -> None:
    with pytest.raises(ValueError, match="has no rule for"):
        joined(DANGERS[1:])


def test_rule_for_a_field_that_is_not_there_is_named() -> None:
    rest = [danger for danger in DANGERS if "FsEntry" not in danger.fields]
    (owner,) = [danger for danger in DANGERS if "FsEntry" in danger.fields]
    more = {**owner.fields, "FsEntry": {**owner.fields["FsEntry"], "shell": free("a test")}}
    with pytest.raises(ValueError, match=r"FsEntry .* a rule for \['shell'\], which it does not have"):
        joined([*rest, Danger(owner.name, more)])


def test_message_with_rules_in_two_places_is_named() -> None:
    with pytest.raises(ValueError, match="FsEntry has rules in two places"):
        joined([*DANGERS, Danger("again", {"FsEntry": {}})])


def test_message_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"there are no messages \['NoEntry'\]"):
        joined([*DANGERS, Danger("more", {"NoEntry": {}})])
