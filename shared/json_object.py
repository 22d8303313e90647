"""Reads JSON that nobody vouches for: bounded, and every value checked for its type where it is taken out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, TypeVar

from shared.errors import CheckpointInvalid

DOCUMENT_BYTES_MAX: Final = 4 << 20
"""config.dump and spec.dump have a few KiB; etcd takes no pod of more than 1.5 MiB."""
TEXT_BYTES_MAX: Final = 256 << 10
"""Linux takes no longer single argument or variable than 128 KiB (execve(2), MAX_ARG_STRLEN)."""
ITEMS_MAX: Final = 100_000
INTEGER_MAX: Final = (1 << 64) - 1

_T = TypeVar("_T")


def invalid(file: str, field: str, why: str) -> CheckpointInvalid:
    return CheckpointInvalid("MetadataMalformed", f"{file}: {field or 'the document'} {why}")


def parse_json(document: bytes, file: str) -> Any:
    """The document's value; CheckpointInvalid("MetadataMalformed") for anything a strict reader refuses.

    Refused as well: a key given twice (readers differ in which one they take), NaN, Infinity.
    """
    if len(document) > DOCUMENT_BYTES_MAX:
        raise invalid(file, "", f"has {len(document)} bytes, more than {DOCUMENT_BYTES_MAX}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key is given twice")
        return found

    def not_json(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(document.decode(), object_pairs_hook=unique, parse_constant=not_json)
    except RecursionError:
        raise invalid(file, "", "is nested too deeply") from None
    except ValueError as error:
        raise invalid(file, "", f"is not valid JSON: {str(error)[:200]}") from None


class JsonObject:
    """One JSON object; ``null`` counts as missing, as Go's encoding/json has it."""

    def __init__(self, value: Any, file: str, field: str = "") -> None:
        if not isinstance(value, dict):
            raise invalid(file, field, "is not an object")
        self._values: dict[str, Any] = value
        self._file = file
        self._field = field

    @classmethod
    def parse(cls, document: bytes, file: str) -> JsonObject:
        return cls(parse_json(document, file), file)

    def text(self, key: str, default: str = "") -> str:
        value = self._values.get(key)
        return default if value is None else self._text(value, key)

    def integer(self, key: str, *, lowest: int = 0, highest: int = INTEGER_MAX) -> int | None:
        value = self._values.get(key)
        return None if value is None else self._integer(value, key, lowest, highest)

    def flag(self, key: str) -> bool:
        value = self._values.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.wrong(key, "is neither true nor false")
        return value

    def object(self, key: str) -> JsonObject:
        """The object under ``key``, an empty one when missing."""
        value = self._values.get(key)
        return JsonObject({} if value is None else value, self._file, self._path(key))

    def has(self, key: str) -> bool:
        return self._values.get(key) is not None

    def texts(self, key: str) -> tuple[str, ...]:
        return self._list(key, self._text)

    def integers(self, key: str, *, highest: int) -> tuple[int, ...]:
        return self._list(key, lambda value, field: self._integer(value, field, 0, highest))

    def objects(self, key: str) -> tuple[JsonObject, ...]:
        return self._list(key, lambda value, field: JsonObject(value, self._file, self._path(field)))

    def text_map(self, key: str) -> Mapping[str, str]:
        inner = self.object(key)._values
        if len(inner) > ITEMS_MAX:
            raise self.wrong(key, f"has more than {ITEMS_MAX} entries")
        return {self._text(name, f"{key} key"): self._text(value, f"{key}[{name!a}]") for name, value in inner.items()}

    def wrong(self, key: str, why: str) -> CheckpointInvalid:
        return invalid(self._file, self._path(key), why)

    def _path(self, key: str) -> str:
        return f"{self._field}.{key}" if self._field else key

    def _list(self, key: str, read: Callable[[Any, str], _T]) -> tuple[_T, ...]:
        value = self._values.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.wrong(key, "is not a list")
        if len(value) > ITEMS_MAX:
            raise self.wrong(key, f"has more than {ITEMS_MAX} entries")
        return tuple(read(item, f"{key}[{index}]") for index, item in enumerate(value))

    def _text(self, value: Any, key: str) -> str:
        if not isinstance(value, str):
            raise self.wrong(key, "is not a text")
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise self.wrong(key, "is not valid Unicode") from None
        if size > TEXT_BYTES_MAX or "\0" in value:
            raise self.wrong(key, "is too long or has a zero byte in it")
        return value

    def _integer(self, value: Any, key: str, lowest: int, highest: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(key, "is not a whole number")
        if not lowest <= value <= highest:
            raise self.wrong(key, f"is not between {lowest} and {highest}")
        return value
