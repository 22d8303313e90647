"""A dump of which the judge's modules say whether CRIU would get it, and what CRIU would get."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from google.protobuf.message import Message

from shared.criu.dump import read_dump
from shared.criu.images import ImageDirectory, Kind, split
from shared.errors import CheckpointInvalid, Refused
from shared.judge.rules import Rules
from shared.judge.writing import Raw
from tests.support.checkpoints import SyntheticDump
from tests.support.pods import InMemory


@dataclass(frozen=True)
class Written:
    """Images that a module writes of a dump, by name; pieces of the dump put in."""

    files: dict[str, bytes]

    def messages(self, kind: Kind, message: type[Message], number: int | str = "") -> list[Any]:
        name = kind.file(number)
        return [message.FromString(piece) for piece in split(self.files[name], kind, name)]


def judged(module: ModuleType, made: SyntheticDump) -> Written | Refused | CheckpointInvalid:
    """What ``module`` (relations, image_files, FIELDS) makes of a dump: its images, or the first refusal."""
    source = InMemory(made.files())
    try:
        images = ImageDirectory(source, "checkpoint")
        dump = read_dump(source)
        refused: Refused
        for refused in module.relations(images, dump):
            return refused
        files: dict[str, bytes] = {}
        for file in module.image_files(images, dump, Rules(module.FIELDS)):
            pieces = [piece if isinstance(piece, bytes) else _content(source, piece) for piece in file.pieces]
            files[file.name] = b"".join(pieces)
    except (Refused, CheckpointInvalid) as error:
        return error
    return Written(files)


def _content(source: InMemory, raw: Raw) -> bytes:
    with source.open(f"checkpoint/{raw.name}") as file:
        file.seek(raw.offset)
        return file.read(-1 if raw.size is None else raw.size)
