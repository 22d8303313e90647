"""Decodes one message of a CRIU image, and accepts one spelling of it only.

CRIU's protobuf-c reads more than it writes: fields that it does not know, a field twice, numbers in longer forms. Two
readers may understand such bytes differently, and a newer CRIU acts on a field that this project has never judged. So a
message must be the bytes that CRIU itself writes: known fields, each at its place, required ones present
(protobuf-c pack, which orders fields by number, as the Python runtime does).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeVar

from google.protobuf import unknown_fields
from google.protobuf.message import DecodeError, Message

from shared.errors import CheckpointInvalid

_Entry = TypeVar("_Entry", bound=Message)
LARGE_BYTES: Final = 1 << 20
FIELD_BYTES_MIN: Final = 16
"""The smallest part that a large message consists of (vma.proto: eight required fields)."""


def decode(message: type[_Entry], content: bytes, image: str) -> _Entry:
    """The message that ``content`` is; raises CheckpointInvalid: ImageDamaged, or ImageUnknown for unknown fields."""
    if len(content) > LARGE_BYTES and _more_fields_than(content, len(content) // FIELD_BYTES_MIN):
        raise damaged(image, "has a message of too many parts")
    try:
        found = message.FromString(content)
    except DecodeError as error:
        raise damaged(image, "has a message that does not decode") from error
    found.DiscardUnknownFields()
    if found.SerializePartialToString(deterministic=True) != content:
        raise _odd(message.FromString(content), image)
    if not found.IsInitialized():
        missing: Any = found
        raise damaged(image, f"lacks the field {missing.FindInitializationErrors()[0]}")
    return found


def _odd(message: Message, image: str) -> CheckpointInvalid:
    unknown = next(_unknown(message), None)
    if unknown is None:
        return damaged(image, "has a message that CRIU would not write so: a field twice, out of order or padded")
    return CheckpointInvalid(
        "ImageUnknown",
        f"{image} has the field {unknown}, which CRIU up to 4.2 does not have; take the checkpoint with a CRIU that "
        "this version of nri-restore knows, or update nri-restore",
    )


def _unknown(message: Message, path: str = "") -> Iterator[str]:
    """Paths of the fields that the message type does not have, as ``CoreEntry.tc.99``."""
    copied = type(message)()
    copied.CopyFrom(message)
    copied.DiscardUnknownFields()
    if copied.SerializePartialToString() == message.SerializePartialToString():
        return
    path = path or message.DESCRIPTOR.name
    fields: Any = unknown_fields.UnknownFieldSet(message)  # its types lack that it is a sequence
    yield from (f"{path}.{field.field_number}" for field in fields)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                yield from _unknown(part, f"{path}.{field.name}")


def _more_fields_than(content: bytes, limit: int) -> bool:
    """Whether the message's own fields are more; bytes that are no fields are left to the decoder."""
    position, count = 0, 0
    while position < len(content) and count <= limit:
        tag, position = _number(content, position)
        count += 1
        if tag & 7 == 2:
            size, position = _number(content, position)
            position += size
        elif tag & 7 == 0:
            _, position = _number(content, position)
        else:
            position += {1: 8, 5: 4}.get(tag & 7, len(content))
    return count > limit


def _number(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(content) and shift < 64:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value, position


def damaged(name: str, why: str) -> CheckpointInvalid:
    """A CheckpointInvalid that says why the image cannot be read."""
    return CheckpointInvalid("ImageDamaged", f"{name} {why}")
