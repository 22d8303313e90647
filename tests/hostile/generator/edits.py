"""One change to one place of a dump, as a value that can be printed, sent to another process and made again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from google.protobuf.message import Message

from tests.hostile.generator.layout import MESSAGES, Part, framed, join, pattern_of
from tests.hostile.generator.sample import FOLDER, Sample, fill, inside

Step = tuple[str, int | None]
"""A field, and which of its elements."""
FieldPath = tuple[Step, ...]
How = Literal[
    # of a field
    "set", "clear", "message", "append", "append message", "drop", "swap",
    # of the bytes of a message
    "suffix", "reverse",
    # of an image's messages
    "insert", "remove", "exchange", "raw",
    # of an image or of its name
    "tail", "file",
]  # fmt: skip
FieldName = tuple[str, str]
"""Message and field, as criu.proto names them."""


class NotPossible(Exception):
    """The edits do not go together: one takes away what another one changes."""


@dataclass(frozen=True, slots=True)
class Edit:
    image: str
    entry: int
    """Which part of the image; -1: the whole."""
    path: FieldPath
    """To the field, or to the message for changes of bytes."""
    how: How
    value: int | bool | bytes | None = None

    def __str__(self) -> str:
        where = "".join(f".{name}" + ("" if index is None else f"[{index}]") for name, index in self.path)
        shown = f"{self.value:#x}" if type(self.value) is int else repr(self.value)
        entry = "" if self.entry < 0 else f"[{self.entry}]"
        return f"{self.image}{entry}{where} {self.how} {shown[:200]}"

    def json(self) -> list[Any]:
        value = {"hex": self.value.hex()} if isinstance(self.value, bytes) else self.value
        return [self.image, self.entry, [list(step) for step in self.path], self.how, value]

    @classmethod
    def parse(cls, document: list[Any]) -> Edit:
        image, entry, path, how, value = document
        value = bytes.fromhex(value["hex"]) if isinstance(value, dict) else value
        return cls(image, entry, tuple((name, index) for name, index in path), how, value)


def to_json(edits: Sequence[Edit]) -> str:
    """What ``--try`` takes."""
    return json.dumps([each.json() for each in edits])


def from_json(document: str) -> list[Edit]:
    return [Edit.parse(each) for each in json.loads(document)]


@dataclass(frozen=True, slots=True)
class Forged:
    """The files that differ from the honest checkpoint's, and the fields that were changed."""

    files: Mapping[str, bytes | None]
    """None: removed."""
    touched: frozenset[FieldName]


def apply(sample: Sample, edits: Iterable[Edit]) -> Forged:
    """Raises NotPossible."""
    by_image: dict[str, list[Edit]] = {}
    for edit in edits:
        by_image.setdefault(edit.image, []).append(edit)
    files: dict[str, bytes | None] = {}
    touched: set[FieldName] = set()
    for image, own in by_image.items():
        whole = [each for each in own if each.how == "file"]
        if len(own) > len(whole) == 1 or len(whole) > 1:
            raise NotPossible
        if whole:
            files[FOLDER + image] = None if whole[0].value is None else bytes(whole[0].value)  # type: ignore[arg-type]
            continue
        files[FOLDER + image] = _Changing(sample, image, touched).apply(own)
    return Forged(files, frozenset(touched))


_ORDER: Final[Mapping[How, int]] = {"drop": 1, "suffix": 2, "reverse": 2, "insert": 3, "remove": 3, "exchange": 3}


class _Changing:
    def __init__(self, sample: Sample, image: str, touched: set[FieldName]) -> None:
        self.sample = sample
        self.image = image
        self.touched = touched
        self.parts: list[Part] = list(sample.parts(image)) if pattern_of(image) else []
        self.copied: set[int] = set()

    def apply(self, edits: Sequence[Edit]) -> bytes:
        tail = b""
        # What moves elements comes last, the last element first, so that numbers mean the same to all.
        for edit in sorted(edits, key=lambda each: (_ORDER.get(each.how, 0), -each.entry)):
            if edit.how == "tail":
                tail += _bytes(edit.value)
            elif _ORDER.get(edit.how) == 3 or edit.how == "raw":
                self.move(edit)
            else:
                self.change(edit)
        if not pattern_of(self.image):
            return self.sample.files[FOLDER + self.image] + tail
        return join(self.image, self.parts) + tail

    def move(self, edit: Edit) -> None:
        if not 0 <= edit.entry <= len(self.parts) - (edit.how != "insert"):
            raise NotPossible
        if edit.how == "insert":
            message = _message_type(self.image, self.parts)()
            message.MergeFromString(_bytes(edit.value))
            self.touch(message)
            self.parts.insert(edit.entry, message)
        elif edit.how == "remove":
            self.touch(self.parts.pop(edit.entry))
        elif edit.how == "exchange":
            if edit.entry + 1 >= len(self.parts):
                raise NotPossible
            first, second = self.parts[edit.entry : edit.entry + 2]
            self.touch(first)
            self.touch(second)
            self.parts[edit.entry : edit.entry + 2] = [second, first]
        else:
            self.parts[edit.entry] = _bytes(edit.value)

    def touch(self, part: Part) -> None:
        if not isinstance(part, bytes):
            self.touched |= set(fields_in(part))

    def change(self, edit: Edit) -> None:
        if edit.entry >= len(self.parts) or isinstance(self.parts[edit.entry], bytes):
            raise NotPossible
        message: Any = self.parts[edit.entry]
        if edit.entry not in self.copied:
            copied = type(message)()
            copied.CopyFrom(message)
            self.parts[edit.entry] = message = copied
            self.copied.add(edit.entry)
        if edit.how in ("suffix", "reverse"):
            self.parts[edit.entry] = framed(_encoded(message, edit.path, edit))
            return
        *above, (name, index) = edit.path
        for step in above:
            message = self.descend(message, step)
        field = message.DESCRIPTOR.fields_by_name[name]
        self.touched.add((message.DESCRIPTOR.name, name))
        self.change_field(message, field, index, edit)

    def descend(self, message: Any, step: Step) -> Any:
        name, index = step
        field = message.DESCRIPTOR.fields_by_name[name]
        value = getattr(message, name)
        if not field.is_repeated:
            if not message.HasField(name):
                self.touched.add((message.DESCRIPTOR.name, name))
                value.SetInParent()
                fill(value)
                self.touch(value)
            return value
        assert index is not None
        if index == len(value) == 0:
            self.touched.add((message.DESCRIPTOR.name, name))
            fill(value.add())
            self.touch(value[0])
        if index >= len(value):
            raise NotPossible
        return value[index]

    def change_field(self, message: Any, field: Any, index: int | None, edit: Edit) -> None:
        name = field.name
        value = getattr(message, name)
        for part in _parts_of(value, field) if edit.how in ("clear", "drop", "swap", "message") else ():
            self.touch(part)
        if edit.how == "set":
            if index is None:
                setattr(message, name, edit.value)
            elif index < len(value):
                value[index] = edit.value
            else:
                raise NotPossible
        elif edit.how == "clear":
            message.ClearField(name)
        elif edit.how == "append":
            value.append(edit.value)
        elif edit.how in ("message", "append message"):
            made = value.add() if field.is_repeated else value
            made.Clear()
            made.SetInParent()
            made.MergeFromString(_bytes(edit.value))
            self.touch(made)
        elif edit.how == "drop":
            if index is None or index >= len(value):
                raise NotPossible
            del value[index]
        elif edit.how == "swap":
            if index is None or index + 1 >= len(value):
                raise NotPossible
            elements = [_copy(each) for each in value]
            elements[index], elements[index + 1] = elements[index + 1], elements[index]
            del value[:]
            value.extend(elements)


def _copy(value: Any) -> Any:
    if isinstance(value, Message):
        copied = type(value)()
        copied.CopyFrom(value)
        return copied
    return value


def _parts_of(value: Any, field: Any) -> Iterator[Message]:
    if field.message_type is not None:
        yield from value if field.is_repeated else (value,)


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value


def _message_type(image: str, parts: Sequence[Part]) -> type[Message]:
    messages = [part for part in parts if not isinstance(part, bytes)]
    pattern = pattern_of(image)
    assert pattern is not None
    return type(messages[-1]) if messages else MESSAGES[pattern]


def fields_in(message: Message) -> Iterator[FieldName]:
    """Every field that the message has set, and those of the messages in it."""
    for each in inside(message):
        for field, _ in each.ListFields():
            yield each.DESCRIPTOR.name, field.name


def _encoded(message: Any, path: FieldPath, edit: Edit) -> bytes:
    """The message's bytes, with the change of bytes made in the part that ``path`` leads to."""
    if not path:
        if edit.how == "suffix":
            return bytes(message.SerializePartialToString()) + _bytes(edit.value)
        return b"".join(reversed(list(_fields(message))))
    (name, index), rest = path[0], path[1:]
    field = message.DESCRIPTOR.fields_by_name[name]
    value = getattr(message, name)
    parts = list(value) if field.is_repeated else [value] if message.HasField(name) else []
    if (index or 0) >= len(parts):
        raise NotPossible
    pieces = []
    for other, piece in _by_number(message):
        if other is not field:
            pieces.append(piece)
            continue
        for number, part in enumerate(parts):
            inner = _encoded(part, rest, edit) if number == (index or 0) else part.SerializePartialToString()
            pieces.append(tag(field.number, 2) + varint(len(inner)) + inner)
    return b"".join(pieces)


def _by_number(message: Any) -> Iterator[tuple[Any, bytes]]:
    for field, value in sorted(message.ListFields(), key=lambda each: each[0].number):
        yield field, serialized(type(message), field, value)


def _fields(message: Any) -> Iterator[bytes]:
    return (piece for _, piece in _by_number(message))


def serialized(message: type[Message], field: Any, value: Any) -> bytes:
    """One field as protobuf writes it, its tag before it."""
    alone: Any = message()
    if field.is_repeated:
        getattr(alone, field.name).extend(value)
    elif field.message_type is not None:
        getattr(alone, field.name).CopyFrom(value)
        getattr(alone, field.name).SetInParent()
    else:
        setattr(alone, field.name, value)
    return bytes(alone.SerializePartialToString())


def tag(number: int, wire: int) -> bytes:
    return varint(number << 3 | wire)


def varint(value: int) -> bytes:
    pieces = bytearray()
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)
