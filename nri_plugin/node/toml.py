"""TOML of other programs: read strictly, merged as they merge it, written as they would."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
import tomlkit.items

from nri_plugin.node.changes import MARK, ConfigureRefused

Table = dict[str, Any]


def parse(text: str, path: Path) -> Table:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigureRefused("ConfigUnreadable", f"{path} is no TOML: {error}") from error


def table(document: Mapping[str, Any], *keys: str) -> Table:
    """The table under these keys; empty when there is none. Raises ConfigureRefused for another kind of value."""
    found: Any = document
    for key in keys:
        found = found.get(key, {})
        if not isinstance(found, dict):
            raise ConfigureRefused("ConfigUnreadable", f"{'.'.join(keys)} is no table in the runtime's configuration")
    return dict(found)


def merged(low: Table, high: Table) -> Table:
    """``high`` over ``low``, table by table."""
    result = dict(low)
    for key, value in high.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def lines(keys: Sequence[str], values: Mapping[str, Any]) -> Iterator[str]:
    """``[keys]`` and its values, then the tables below it."""
    name = ".".join(tomlkit.key(key).as_string() if key.isascii() else f'"{key}"' for key in keys)
    yield f"[{name}]"
    for key, value in values.items():
        if not isinstance(value, dict):
            yield f"{tomlkit.key(key).as_string()} = {tomlkit.item(value).as_string()}"
    for key, value in values.items():
        if isinstance(value, dict):
            yield ""
            yield from lines([*keys, key], value)


def with_marked_value(text: str, keys: Sequence[str], value: str) -> str | None:
    """``text`` with one string set, and in a comment what it was, which ``changes.without_block`` takes back.

    None where the table is not there, or only by tables below it: it can be added then.
    """
    found: Any = tomlkit.parse(text)
    document = found
    for key in keys[:-1]:
        found = found.get(key, {})
    if not isinstance(found, tomlkit.items.Table) or found.is_super_table():
        return None
    before = found.get(keys[-1])
    item = tomlkit.string(value)
    item.comment(MARK if before is None else f"{MARK} {before.as_string()} {before.trivia.comment}".rstrip())
    found[keys[-1]] = item
    return str(document.as_string())


def with_value(text: str, keys: Sequence[str], value: Any) -> str:
    """``text`` with one value set in a table that is there; comments and order stay."""
    document = tomlkit.parse(text)
    found: Any = document
    for key in keys[:-1]:
        found = found[key]
    found[keys[-1]] = value
    return document.as_string()
