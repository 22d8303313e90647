"""CRIU's image files: magic numbers, and protobuf messages each behind its length.

Sources: checkpoint-restore/criu criu/include/magic.h, criu/image-desc.c (file names), criu/image.c (img_check_magic),
criu/protobuf.c (do_pb_read_one: little-endian u32 length, then the message). All of it is untrusted: sizes and counts
are bounded here, and every failure is CheckpointInvalid naming the image.
"""

from __future__ import annotations

import enum
import itertools
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from google.protobuf.message import Message

from shared.archive import CheckpointFiles
from shared.criu.decode import damaged, decode
from shared.criu.magic import MAGIC
from shared.errors import CheckpointInvalid
from shared.member_names import quoted

IMG_COMMON_MAGIC: Final = 0x54564319
IMAGE_BYTES_MAX: Final = 64 << 20
ENTRY_BYTES_MAX: Final = 4 << 20
"""A message may consist of others of two bytes, each of which costs some sixty bytes of memory."""
MM_BYTES_MAX: Final = 16 << 20
"""A process with 300,000 mappings has as large an mm image."""
DUMP_BYTES_MAX: Final = 256 << 20
"""Of all images read for one dump, pagemaps aside …"""
DUMP_ENTRIES_MAX: Final = 250_000
"""… and of the messages in them: some hundred bytes of memory each."""
PAGEMAP_BYTES_MAX: Final = 256 << 20
"""Streamed; enough for 40 GiB of memory without two neighbouring pages."""

_U32: Final = struct.Struct("<I")
_Entry = TypeVar("_Entry", bound=Message)


def header(pattern: str) -> bytes:
    """What an image of this name starts with: the inventory alone has no common magic (CRTOOLS_IMAGES_V1_1)."""
    own = _U32.pack(MAGIC[pattern])
    return own if pattern == "inventory.img" else _U32.pack(IMG_COMMON_MAGIC) + own


class Kind(enum.Enum):
    """Images by how they are named; ``%`` stands for a number, hexadecimal for ghosts and TCP streams."""

    INVENTORY = "inventory.img"
    PSTREE = "pstree.img"
    CORE = "core-%.img"
    IDS = "ids-%.img"
    MM = "mm-%.img"
    FS = "fs-%.img"
    FDINFO = "fdinfo-%.img"
    FILES = "files.img"
    PAGEMAP = "pagemap-%.img"
    SHMEM_PAGEMAP = "pagemap-shmem-%.img"
    MNTS = "mountpoints-%.img"
    UTSNS = "utsns-%.img"
    IPC_VAR = "ipcns-var-%.img"
    NETNS = "netns-%.img"
    CGROUP = "cgroup.img"
    TIMENS = "timens-%.img"
    SECCOMP = "seccomp.img"
    REMAP_FPATH = "remap-fpath.img"
    GHOST_FILE = "ghost-file-%.img"
    FILE_LOCKS = "filelocks.img"
    CPUINFO = "cpuinfo.img"
    MEMFD = "memfd.img"
    TTY_INFO = "tty-info.img"
    TTY_DATA = "tty-data.img"
    PIPES_DATA = "pipes-data.img"
    FIFO_DATA = "fifo-data.img"
    SK_QUEUES = "sk-queues.img"
    TCP_STREAM = "tcp-stream-%.img"
    IPC_SHM = "ipcns-shm-%.img"
    IPC_MSG = "ipcns-msg-%.img"
    IPC_SEM = "ipcns-sem-%.img"
    PIDNS = "pidns-%.img"
    USERNS = "userns-%.img"
    BPFMAP_DATA = "bpfmap-data.img"

    def file(self, number: int | str = "") -> str:
        """The image's name, e.g. ``core-17.img``."""
        return self.value.replace("%", str(number))

    @property
    def header(self) -> bytes:
        """What the image starts with."""
        return header(self.value)


class Budget:
    """How much of a dump may still be read: many small images cost as much as a large one."""

    def __init__(self) -> None:
        self._bytes = DUMP_BYTES_MAX
        self._entries = DUMP_ENTRIES_MAX

    def spend(self, name: str, *, size: int = 0, entries: int = 0) -> None:
        self._bytes -= size
        self._entries -= entries
        if self._bytes < 0 or self._entries < 0:
            raise CheckpointInvalid(
                "DumpTooLarge",
                f"the dump's images have more than {DUMP_BYTES_MAX} bytes or {DUMP_ENTRIES_MAX} messages by {name}",
            )


@dataclass(frozen=True, slots=True)
class ImageDirectory:
    """The CRIU images of one checkpoint."""

    files: CheckpointFiles
    directory: str
    """Where they lie in the checkpoint, ``checkpoint`` in all engines' archives."""
    budget: Budget = field(default_factory=Budget)
    _parsed: dict[str, list[Any]] = field(default_factory=dict)
    """Messages by image: what is judged is what was read, and what is written."""
    _placed: dict[str, list[tuple[Any, int]]] = field(default_factory=dict)
    """The same of images in which raw bytes follow messages, with the place of these (raw_content.py)."""

    def copied(self) -> ImageDirectory:
        """The messages that were read, to be changed while these stay."""
        parsed = {name: [_copy(message) for message in messages] for name, messages in self._parsed.items()}
        placed = {name: [(_copy(each), at) for each, at in found] for name, found in self._placed.items()}
        return ImageDirectory(self.files, self.directory, self.budget, parsed, placed)

    def placed(self, kind: Kind, read: Callable[[], Iterable[tuple[_Entry, int]]]) -> list[tuple[_Entry, int]]:
        """What ``read`` gives, read once: a dump is judged when its files are closed."""
        if kind.file() not in self._placed:
            self._placed[kind.file()] = list(read())
        return self._placed[kind.file()]

    def path(self, name: str) -> str:
        return f"{self.directory}/{name}" if self.directory else name

    def __contains__(self, name: str) -> bool:
        return self.path(name) in self.files

    def names(self) -> tuple[str, ...]:
        """Names of the images, without the directory."""
        start = self.path("")
        return tuple(name[len(start) :] for name in self.files.names() if name.startswith(start))

    def entries(self, kind: Kind, message: type[_Entry], number: int | str = "") -> list[_Entry]:
        """Every message of an image; FileMissing, WrongMagic, ImageDamaged, DumpTooLarge otherwise."""
        name = self.path(kind.file(number))
        if (known := self._parsed.get(name)) is not None:
            return known
        found = []
        for piece in split(self._content(name), kind, name):
            self.budget.spend(name, entries=1)
            found.append(decode(message, piece, name))
        self._parsed[name] = found
        return found

    def one(self, kind: Kind, message: type[_Entry], number: int | str = "") -> _Entry:
        """The only message of an image: CRIU reads the first and ignores the rest, so a second one is refused."""
        name = self.path(kind.file(number))
        if name not in self._parsed:
            pieces = list(itertools.islice(split(self._content(name), kind, name), 2))
            if len(pieces) != 1:
                raise damaged(name, f"has {len(pieces) or 'no'} messages or more instead of one")
            self._parsed[name] = [decode(message, pieces[0], name)]
        (found,) = self._parsed[name]
        return cast(_Entry, found)

    def _content(self, name: str) -> bytes:
        content = self.files.read(name, IMAGE_BYTES_MAX)
        self.budget.spend(name, size=len(content))
        return content

    def stream(self, kind: Kind, number: int | str) -> Iterator[bytes]:
        """The serialized messages of an image of any length, one at a time; for pagemaps."""
        name = self.path(kind.file(number))
        if self.files.size(name) > PAGEMAP_BYTES_MAX:
            raise CheckpointInvalid("FileTooLarge", f"{name} has more than {PAGEMAP_BYTES_MAX} bytes")
        start = kind.header
        with self.files.open(name) as image:
            if image.read(len(start)) != start:
                raise wrong_magic(name, kind.value)
            while prefix := image.read(4):
                size = _U32.unpack(prefix)[0] if len(prefix) == 4 else -1
                piece = image.read(size) if 0 <= size <= 4096 else b""
                if len(piece) != size:
                    raise damaged(name, "ends in the middle of a message, or has too large a one")
                yield piece

    def first(self, kind: Kind, message: type[_Entry], number: int | str = "") -> _Entry:
        """The first message of an image that goes on with raw content."""
        name = self.path(kind.file(number))
        start = kind.header
        with self.files.open(name) as image:
            if image.read(len(start)) != start:
                raise wrong_magic(name, kind.value)
            prefix = image.read(4)
            size = _U32.unpack(prefix)[0] if len(prefix) == 4 else -1
            content = image.read(size) if 0 <= size <= 4096 else b""
        if len(content) != size:
            raise damaged(name, "ends in the middle of its first message, or has too large a one")
        return decode(message, content, name)


def _copy(message: Message) -> Message:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


def wrong_magic(name: str, pattern: str) -> CheckpointInvalid:
    return CheckpointInvalid("WrongMagic", f"{name} does not start with the magic number of CRIU's {pattern}")


def split(content: bytes, kind: Kind, name: str) -> Iterator[bytes]:
    """The serialized messages of an image."""
    start = kind.header
    if not content.startswith(start):
        raise wrong_magic(name, kind.value)
    offset, end = len(start), len(content)
    limit = MM_BYTES_MAX if kind is Kind.MM else ENTRY_BYTES_MAX
    while offset < end:
        if end - offset < 4:
            raise damaged(name, "ends in the middle of a length")
        (size,) = _U32.unpack_from(content, offset)
        offset += 4
        if size > min(end - offset, limit):
            raise damaged(name, "ends in the middle of a message, or has too large a one")
        yield content[offset : offset + size]
        offset += size


def join(kind: Kind, messages: Sequence[Message]) -> bytes:
    """The image with these messages."""
    pieces = [kind.header]
    for message in messages:
        serialized = message.SerializeToString(deterministic=True)
        pieces += [_U32.pack(len(serialized)), serialized]
    return b"".join(pieces)


def text(value: bytes, name: str, limit_bytes: int = 4096) -> str:
    """A string of an image; a zero byte is refused, because CRIU would read only what stands before it."""
    if b"\0" in value:
        raise damaged(name, "has a zero byte in a text")
    if len(value) > limit_bytes:
        raise damaged(name, f"has a text of more than {limit_bytes} bytes")
    return value.decode(errors="backslashreplace")


def path_text(value: bytes, name: str, field: str) -> str:
    """An absolute path of an image without ``..``: CRIU joins them to paths of the node before it changes root."""
    path = text(value, name)
    if not path.startswith("/") or ".." in path.split("/"):
        raise CheckpointInvalid(
            "ImagePath", f"{name} has the {field} {quoted(path)}, which leads outside the container"
        )
    return path
