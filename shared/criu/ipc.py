"""System V objects of a dump's IPC namespace: shared memory, message queues, semaphores.

Their images alternate messages and raw content (criu/ipc_ns.c: dump_ipc_msg_queue_messages, dump_ipc_sem_set; content
is padded to eight bytes). Shared memory has its content in a page map of its own (``in_pagemaps``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from google.protobuf.message import Message

from shared.criu.criu_pb2 import IpcDescEntry, IpcMsg, IpcMsgEntry, IpcSemEntry, IpcShmEntry
from shared.criu.decode import damaged, decode
from shared.criu.images import IMAGE_BYTES_MAX, Budget, ImageDirectory, Kind, wrong_magic
from shared.errors import CheckpointInvalid

_U32: Final = struct.Struct("<I")
_Entry = TypeVar("_Entry", bound=Message)


@dataclass(frozen=True, slots=True)
class SharedMemory:
    entry: IpcShmEntry


@dataclass(frozen=True, slots=True)
class Semaphores:
    entry: IpcSemEntry
    values: bytes
    """Padded."""


@dataclass(frozen=True, slots=True)
class MessageQueue:
    entry: IpcMsgEntry
    messages: tuple[tuple[IpcMsg, bytes], ...]
    """With their text, padded."""


@dataclass(frozen=True, slots=True)
class IpcObjects:
    memory: tuple[SharedMemory, ...] = ()
    queues: tuple[MessageQueue, ...] = ()
    semaphores: tuple[Semaphores, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.memory or self.queues or self.semaphores)

    @property
    def owners(self) -> Iterator[tuple[str, IpcDescEntry]]:
        """What each object is called in a sentence, and its owner and rights."""
        yield from (("shared memory", each.entry.desc) for each in self.memory)
        yield from (("message queue", each.entry.desc) for each in self.queues)
        yield from (("semaphore set", each.entry.desc) for each in self.semaphores)


def read_ipc(images: ImageDirectory, namespace: int) -> IpcObjects:
    """The objects of this namespace; raises CheckpointInvalid: WrongMagic, ImageDamaged, ImagesTooOld."""
    return IpcObjects(
        tuple(_memory(images, namespace)), tuple(_queues(images, namespace)), tuple(_semaphores(images, namespace))
    )


def _memory(images: ImageDirectory, namespace: int) -> Iterator[SharedMemory]:
    if Kind.IPC_SHM.file(namespace) not in images:
        return
    for entry in images.entries(Kind.IPC_SHM, IpcShmEntry, namespace):
        if not entry.in_pagemaps:
            name = images.path(Kind.IPC_SHM.file(namespace))
            raise CheckpointInvalid("ImagesTooOld", f"{name} holds shared memory as CRIU before 3.0 wrote it")
        yield SharedMemory(entry)


def _queues(images: ImageDirectory, namespace: int) -> Iterator[MessageQueue]:
    for reader in _reader(images, Kind.IPC_MSG, namespace):
        entry = reader.message(IpcMsgEntry)
        messages = []
        for _ in range(entry.qnum):
            message = reader.message(IpcMsg)
            messages.append((message, reader.raw(message.msize)))
        yield MessageQueue(entry, tuple(messages))


def _semaphores(images: ImageDirectory, namespace: int) -> Iterator[Semaphores]:
    for reader in _reader(images, Kind.IPC_SEM, namespace):
        entry = reader.message(IpcSemEntry)
        yield Semaphores(entry, reader.raw(2 * entry.nsems))


@dataclass(slots=True)
class _Reader:
    content: bytes
    position: int
    name: str
    budget: Budget

    def raw(self, size: int) -> bytes:
        padded = (size + 7) & ~7
        found = self.content[self.position : self.position + padded]
        if len(found) != padded:
            raise damaged(self.name, "ends in the middle of an object's content")
        self.position += padded
        return found

    def message(self, message: type[_Entry]) -> _Entry:
        if len(self.content) - self.position < 4:
            raise damaged(self.name, "ends in the middle of a length")
        (size,) = _U32.unpack_from(self.content, self.position)
        start = self.position + 4
        if size > len(self.content) - start:
            raise damaged(self.name, "ends in the middle of a message")
        self.position = start + size
        self.budget.spend(self.name, entries=1)
        return decode(message, self.content[start : self.position], self.name)


def _reader(images: ImageDirectory, kind: Kind, namespace: int) -> Iterator[_Reader]:
    """One reader, again and again until its image ends; none where there is no image."""
    if kind.file(namespace) not in images:
        return
    name = images.path(kind.file(namespace))
    content = images.files.read(name, IMAGE_BYTES_MAX)
    images.budget.spend(name, size=len(content))
    if not content.startswith(kind.header):
        raise wrong_magic(name, kind.value)
    reader = _Reader(content, len(kind.header), name, images.budget)
    while reader.position < len(content):
        yield reader
