"""A document with a reason beside each of its parts that needs one, written as YAML with comments."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any, Final

from shared.printable import safe

Mapping = dict[str, Any]
_PLAIN: Final = re.compile(r"[A-Za-z_/](?:[A-Za-z0-9_./@-]|:(?=[A-Za-z0-9_./@-]))*")
_WORDS: Final = frozenset({"y", "n", "yes", "no", "true", "false", "on", "off", "null", "nan", "inf"})
"""What YAML 1.1 does not read as text."""
_WIDTH: Final = 110


class Comments:
    """Sentences by the place they are about; mappings are told apart by identity, for what is in them still changes."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], tuple[Mapping, list[str]]] = {}

    def add(self, mapping: Mapping, key: str, sentence: str) -> None:
        """About ``mapping[key]``, or about the mapping itself when ``key`` is empty."""
        self._known.setdefault((id(mapping), key), (mapping, []))[1].append(sentence)

    def of(self, mapping: Mapping, key: str = "") -> list[str]:
        return self._known.get((id(mapping), key), (mapping, []))[1]

    def listed(self, document: Mapping) -> list[tuple[str, str]]:
        """``(spec.containers[0].image, sentence)`` in the document's order."""
        return list(self._walk(document, ""))

    def _walk(self, value: object, path: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            yield from ((path, sentence) for sentence in self.of(value))
            for key, inner in value.items():
                where = f"{path}.{key}" if path else key
                yield from ((where, sentence) for sentence in self.of(value, key))
                yield from self._walk(inner, where)
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                yield from self._walk(inner, f"{path}[{number}]")


def as_yaml(document: Mapping, comments: Comments) -> str:
    return "".join(f"{line}\n" for line in _lines(document, comments))


def _lines(value: object, comments: Comments) -> Iterator[str]:
    """Of a mapping or list that is not empty."""
    if isinstance(value, dict):
        yield from (line for sentence in comments.of(value) for line in _comment(sentence))
        for key, inner in value.items():
            yield from (line for sentence in comments.of(value, key) for line in _comment(sentence))
            if not inner or not isinstance(inner, (dict, list)):
                yield f"{_scalar(key)}: {_scalar(inner)}"
                continue
            yield f"{_scalar(key)}:"
            indent = "  " if isinstance(inner, dict) else ""
            yield from (indent + line for line in _lines(inner, comments))
        return
    assert isinstance(value, list)
    for inner in value:
        if not inner or not isinstance(inner, (dict, list)):
            yield f"- {_scalar(inner)}"
            continue
        begun = False
        for line in _lines(inner, comments):
            if begun or line.startswith("#"):
                yield f"  {line}" if begun else line
            else:
                begun = True
                yield f"- {line}"


def _comment(sentence: str) -> list[str]:
    """Never more than comments, whatever a checkpoint calls its paths: control characters are shown as escapes."""
    return [f"# {line}" for line in textwrap.wrap(safe(sentence), _WIDTH, break_long_words=False)]


def _scalar(value: object) -> str:
    if value is None or isinstance(value, (bool, int, float, dict, list)):
        return json.dumps(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    if text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    import yaml

    quoted: str = yaml.safe_dump(text, default_style='"', width=1 << 30)
    return quoted.rstrip("\n")
