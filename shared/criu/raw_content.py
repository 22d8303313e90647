"""Images in which raw bytes follow a message: what pipes, socket queues and deleted files held.

Sources: criu/pipes.c (do_collect_pipe_data), criu/sk-queue.c (read_sk_queues), criu/files-reg.c
(copy_file_from_chunks). Only the messages are read; the bytes are skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, TypeVar

from google.protobuf.message import Message

from shared.criu.decode import damaged, decode
from shared.criu.images import ImageDirectory, Kind, wrong_magic

_Entry = TypeVar("_Entry", bound=Message)
_U32: Final = struct.Struct("<I")
_MESSAGE_BYTES_MAX: Final = 64 << 10
_SKIPPED_AT_ONCE: Final = 1 << 20


def with_content(
    images: ImageDirectory, kind: Kind, message: type[_Entry], size: Callable[[_Entry], int]
) -> Iterator[tuple[_Entry, int]]:
    """A copy of each message of the image, and where in the file its content starts; ``size``: bytes that it has there.

    The image is read once: a live pod may be there only when the checkpoint's files are closed.
    Raises CheckpointInvalid: FileMissing, WrongMagic, ImageDamaged.
    """
    name = images.path(kind.file())
    if name not in images.followed:
        with images.files.open(name) as image:
            if image.read(len(kind.header)) != kind.header:
                raise wrong_magic(name, kind.value)
            found = _from(image, len(kind.header), images.files.size(name), message, size, images, name)
            images.followed[name] = list(found)
    for entry, position in images.followed[name]:
        copied = message()
        copied.CopyFrom(entry)
        yield copied, position


def after_first(
    images: ImageDirectory,
    kind: Kind,
    number: int | str,
    message: type[_Entry],
    size: Callable[[_Entry], int],
) -> Iterator[tuple[_Entry, int]]:
    """As ``with_content``, of an image that starts with one message of another type."""
    name = images.path(kind.file(number))
    with images.files.open(name) as image:
        position = content_start(images, kind, number)
        _skip(image, position)
        yield from _from(image, position, images.files.size(name), message, size, images, name)


def content_start(images: ImageDirectory, kind: Kind, number: int | str) -> int:
    """Where in the file the bytes after the first message start."""
    name = images.path(kind.file(number))
    with images.files.open(name) as image:
        image.read(len(kind.header))
        prefix = image.read(4)
    if len(prefix) != 4:
        raise damaged(name, "ends in the middle of its first message")
    return len(kind.header) + 4 + int(_U32.unpack(prefix)[0])


def _from(
    image: BinaryIO,
    position: int,
    end: int,
    message: type[_Entry],
    size: Callable[[_Entry], int],
    images: ImageDirectory,
    name: str,
) -> Iterator[tuple[_Entry, int]]:
    while prefix := image.read(4):
        length = _U32.unpack(prefix)[0] if len(prefix) == 4 else -1
        content = image.read(length) if 0 <= length <= _MESSAGE_BYTES_MAX else b""
        if len(content) != length:
            raise damaged(name, "ends in the middle of a message, or has too large a one")
        images.budget.spend(name, size=length, entries=1)
        entry = decode(message, content, name)
        position += 4 + length
        following = size(entry)
        if following > end - position:
            raise damaged(name, f"ends before the {following} bytes that a message announces")
        yield entry, position
        _skip(image, following)
        position += following


def _skip(image: BinaryIO, size: int) -> None:
    if image.seekable():
        image.seek(size, 1)
        return
    while size > 0 and (read := len(image.read(min(size, _SKIPPED_AT_ONCE)))):
        size -= read
