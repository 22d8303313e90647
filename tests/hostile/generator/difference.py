"""Where the images that CRIU would get differ from those of the honest checkpoint, field by field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from google.protobuf.message import Message

from shared.judge.writing import Raw
from tests.hostile.generator.edits import fields_in
from tests.hostile.generator.layout import Part, parse, pattern_of
from tests.hostile.generator.sample import FOLDER, InMemory

Written = Mapping[str, Sequence[bytes | Raw]]
"""Pieces of every image file that CRIU would get, by its name."""


@dataclass(frozen=True, slots=True)
class Change:
    kind: Literal["changed", "added", "omitted", "order", "raw"]
    message: str
    """For raw bytes: the kind of image."""
    field: str

    def __str__(self) -> str:
        whole = self.kind in ("added", "omitted")
        return f"{self.message} {self.kind}" if whole else f"{self.message}.{self.field} {self.kind}"


def differing(honest: Written, own: Written, changed: Mapping[str, bytes | None]) -> list[str]:
    """Names of the files that CRIU would get otherwise.

    ``changed`` are files of the checkpoint that differ: raw bytes of others are the same at the same place.
    """
    names = sorted(honest.keys() | own.keys())
    return [name for name in names if not _alike(honest.get(name), own.get(name), changed)]


def _alike(
    honest: Sequence[bytes | Raw] | None, own: Sequence[bytes | Raw] | None, changed: Mapping[str, bytes | None]
) -> bool:
    if honest is None or own is None or list(honest) != list(own):
        return False
    return not any(isinstance(piece, Raw) and FOLDER + piece.name in changed for piece in own)


def content(pieces: Sequence[bytes | Raw] | None, files: InMemory) -> bytes | None:
    """The file as CRIU would read it."""
    if pieces is None:
        return None
    found = []
    for piece in pieces:
        if isinstance(piece, Raw):
            whole = files.content(FOLDER + piece.name)
            end = len(whole) if piece.size is None else piece.offset + piece.size
            assert end <= len(whole), f"{piece} reaches behind the end of the file, which has {len(whole)} bytes"
            found.append(whole[piece.offset : end])
        else:
            found.append(piece)
    return b"".join(found)


def changes(name: str, honest: bytes | None, own: bytes | None) -> Iterator[Change]:
    """How one file differs."""
    if honest == own:
        return
    pattern = pattern_of(name)
    if pattern is None:
        kind: Literal["added", "omitted", "raw"] = "added" if honest is None else "omitted" if own is None else "raw"
        yield Change("raw", name.partition("-")[0], kind)
        return
    before = [] if honest is None else parse(name, honest)
    after = [] if own is None else parse(name, own)
    if honest is None or own is None:
        yield Change("added" if honest is None else "omitted", pattern, "file")
    yield from _between(pattern, before, after)


def _key(part: Part) -> tuple[str, bytes]:
    return ("", part) if isinstance(part, bytes) else (part.DESCRIPTOR.name, part.SerializePartialToString())


def _between(where: str, before: Sequence[Part], after: Sequence[Part]) -> Iterator[Change]:
    """Parts that are alike are left out; the others are taken in turn, each with the first of its type."""
    gone, new = _without(before, after), _without(after, before)
    if not gone and not new:
        yield Change("order", where, "order")
    for part in new:
        if isinstance(part, bytes):
            yield Change("raw", where, "bytes")
            continue
        other = next((each for each in gone if type(each) is type(part)), None)
        if other is None:
            yield from (Change("added", *field) for field in fields_in(part))
        else:
            gone.remove(other)
            yield from _in_message(other, part)
    for part in gone:
        if isinstance(part, bytes):
            yield Change("raw", where, "bytes")
        else:
            yield from (Change("omitted", *field) for field in fields_in(part))


def _without(parts: Sequence[Part], others: Sequence[Part]) -> list[Part]:
    left = Counter(map(_key, others))
    found = []
    for part in parts:
        key = _key(part)
        if left[key]:
            left[key] -= 1
        else:
            found.append(part)
    return found


def _in_message(before: Any, after: Any) -> Iterator[Change]:
    name = before.DESCRIPTOR.name
    for field in before.DESCRIPTOR.fields:
        old, new = getattr(before, field.name), getattr(after, field.name)
        if field.message_type is None:
            present = True if field.is_repeated else before.HasField(field.name) == after.HasField(field.name)
            if old != new or not present:
                yield Change("changed", name, field.name)
        elif field.is_repeated:
            if [_key(each) for each in old] != [_key(each) for each in new]:
                if len(old) != len(new):
                    yield Change("changed", name, field.name)
                yield from _between(f"{name}.{field.name}", list(old), list(new))
        elif before.HasField(field.name) != after.HasField(field.name):
            yield Change("changed", name, field.name)
            kind: Literal["added", "omitted"] = "added" if after.HasField(field.name) else "omitted"
            part: Message = new if kind == "added" else old
            yield from (Change(kind, *each) for each in fields_in(part))
        elif after.HasField(field.name) and _key(old) != _key(new):
            yield from _in_message(old, new)
