"""Every field of every message that a dump has, and of those that the format has and the dump lacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from shared.criu import criu_pb2 as pb
from tests.hostile.generator.edits import FieldName, FieldPath
from tests.hostile.generator.layout import pattern_of
from tests.hostile.generator.sample import Sample

OCCURRENCES: Final = 5
"""Of one field that are changed; a dump has hundreds of some, of which most are alike."""

EVERY: Final[frozenset[FieldName]] = frozenset(
    (message.name, field.name) for message in pb.DESCRIPTOR.message_types_by_name.values() for field in message.fields
)
"""All fields of the format."""


@dataclass(frozen=True, slots=True)
class Target:
    """One field in one place."""

    image: str
    entry: int
    path: FieldPath
    """To the field; an element of a repeated message is on the way to a field, never its end."""
    message: Any
    """Descriptor of the message that has the field."""
    field: Any
    honest: Any
    """The value there; None: absent, or in a message that is."""

    @property
    def name(self) -> FieldName:
        return self.message.name, self.field.name


def targets(sample: Sample) -> list[Target]:
    """Up to OCCURRENCES of each field, unlike each other where they can be; a field comes at all if any place has it.

    Absent images and messages are entered for fields that are nowhere else.
    """
    chosen: dict[FieldName, list[Target]] = {}
    keys: dict[FieldName, set[object]] = {}

    def keep(target: Target) -> None:
        known, seen = chosen.setdefault(target.name, []), keys.setdefault(target.name, set())
        key = _key(target)
        if len(known) < OCCURRENCES and key not in seen:
            seen.add(key)
            known.append(target)

    for image, entry, message in sample.messages():
        for target in _in_message(image, entry, (), message):
            keep(target)
    for image, parts in sample.absent.items():
        for target in _in_message(image, 0, (), parts[0]):
            if target.name not in chosen or target.image == image:
                keep(target)
    for target in [each for found in list(chosen.values()) for each in found]:
        if target.field.message_type is not None and not _has(target):
            for inner in _in_absent(target, target.field.message_type, target.path, ()):
                if inner.name not in chosen:
                    keep(inner)
    return [each for found in chosen.values() for each in found]


def _key(target: Target) -> object:
    """What makes two places of a field unlike: the value, or the kind of image where it is long or a message."""
    pattern = pattern_of(target.image)
    depth = tuple(name for name, _ in target.path)
    if target.field.message_type is not None or target.field.is_repeated:
        return pattern, depth, _has(target)
    if isinstance(target.honest, bytes):
        return pattern, depth, target.honest[:40]
    return pattern, depth, target.honest


def _has(target: Target) -> bool:
    return bool(target.honest) if target.field.is_repeated else target.honest is not None


def _in_message(image: str, entry: int, path: FieldPath, message: Any) -> Iterator[Target]:
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        present = field.is_repeated or message.HasField(field.name)
        here = (*path, (field.name, None))
        yield Target(image, entry, here, message.DESCRIPTOR, field, value if present else None)
        if field.message_type is not None and present:
            for index, part in enumerate(value if field.is_repeated else (value,)):
                step = (field.name, index if field.is_repeated else None)
                yield from _in_message(image, entry, (*path, step), part)


def _in_absent(target: Target, message: Any, path: FieldPath, above: tuple[str, ...]) -> Iterator[Target]:
    """Fields of a message that would have to be made first, and of those in it."""
    if message.name in above:
        return
    last, _ = path[-1]
    inside: FieldPath = (*path[:-1], (last, 0 if _field_at(target, path).is_repeated else None))
    for field in message.fields:
        here = (*inside, (field.name, None))
        inner = Target(target.image, target.entry, here, message, field, None)
        yield inner
        if field.message_type is not None:
            yield from _in_absent(target, field.message_type, here, (*above, message.name))


def _field_at(target: Target, path: FieldPath) -> Any:
    """The descriptor of the field that ``path``, which goes on from the target's, ends with."""
    field = target.field
    for name, _ in path[len(target.path) :]:
        field = field.message_type.fields_by_name[name]
    return field


def message_type(descriptor: Any) -> type[Message]:
    found: type[Message] = getattr(pb, descriptor.name)
    return found
