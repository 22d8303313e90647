"""The files that CRIU restores from: messages that were judged and written anew, raw content under names of ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from shared.criu.images import Kind, join


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes of a file of the dump that no reader interprets: pages, what a deleted file or a pipe held."""

    name: str
    """The file's name in the dump's directory."""
    offset: int = 0
    size: int | None = None
    """Bytes; None: all from ``offset`` on."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file of the directory that CRIU gets: its pieces one after the other."""

    name: str
    pieces: Sequence[bytes | Raw]

    @property
    def linked(self) -> str | None:
        """The file of the dump that this one is as a whole, which is linked instead of copied."""
        if len(self.pieces) == 1 and isinstance(self.pieces[0], Raw):
            raw = self.pieces[0]
            return raw.name if raw.offset == 0 and raw.size is None else None
        return None


def image_file(kind: Kind, messages: Iterable[Message], number: int | str = "") -> ImageFile:
    """An image of messages alone."""
    return ImageFile(kind.file(number), (join(kind, list(messages)),))
