"""A real checkpoint in memory, ready to be mutated thousands of times a second."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from google.protobuf.message import Message

from shared.checkpoint_files import CheckpointFiles
from shared.spec import RuntimeSpec
from tests.hostile.attack import AS_USER, Twin, Victim
from tests.hostile.forgery import Forgery
from tests.hostile.generator.layout import MESSAGES, Part, parse, pattern_of
from tests.hostile.in_process import forged, live_of

FOLDER: Final = "checkpoint/"


class InMemory(CheckpointFiles):
    """Files by name, some of them other than in the checkpoint they come from; nothing is read when it is closed."""

    def __init__(self, files: Mapping[str, bytes], changed: Mapping[str, bytes | None] | None = None) -> None:
        self.path = Path("/memory")
        self._changed = dict(changed or {})
        self._names = {name: None for name in (*files, *self._changed) if self._changed.get(name, b"") is not None}
        self._files = files
        self._closed = False

    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def size(self, name: str) -> int:
        return len(self.content(name))

    def open(self, name: str) -> BinaryIO:
        assert not self._closed, f"{name} is read after the checkpoint was closed"
        return cast(BinaryIO, io.BytesIO(self.content(name)))

    def close(self) -> None:
        self._closed = True

    def content(self, name: str) -> bytes:
        """A file's bytes, for the suite itself."""
        if name not in self._names:
            raise self._missing(name)
        found = self._changed.get(name)
        return self._files[name] if found is None else found


@dataclass(frozen=True)
class Sample:
    """One checkpoint, and the pod that restores it."""

    name: Victim
    archive: Path
    files: Mapping[str, bytes]
    """Every file of the archive by its name there."""
    live: RuntimeSpec
    _parts: dict[str, list[Part]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, name: Victim, archive: Path) -> Sample:
        files = forged(Twin("itself", lambda forgery: None, name), archive).contents()
        return cls(name, archive, files, live_of(archive, user=name in AS_USER))

    def images(self) -> list[str]:
        """Names of the images that are messages, in the archive's order."""
        names = [name.removeprefix(FOLDER) for name in self.files if name.startswith(FOLDER)]
        return [name for name in names if pattern_of(name) is not None]

    def parts(self, image: str) -> list[Part]:
        """The parts of an image, shared: copy before changing; of an absent one, those it would be made with."""
        if image not in self._parts:
            content = self.files.get(FOLDER + image)
            self._parts[image] = [] if content is None else parse(image, content)
        return self._parts[image] or self.absent.get(image, [])

    def messages(self) -> Iterator[tuple[str, int, Message]]:
        """Image, number in it, and message, of all that the dump has."""
        for image in self.images():
            for number, part in enumerate(parse(image, self.files[FOLDER + image])):
                if not isinstance(part, bytes):
                    yield image, number, part

    @cached_property
    def every(self) -> dict[str, list[Message]]:
        """Messages of the dump by the name of their type, those inside others too."""
        found: dict[str, list[Message]] = {}
        for _, _, message in self.messages():
            for each in inside(message):
                found.setdefault(each.DESCRIPTOR.name, []).append(each)
        return found

    @cached_property
    def absent(self) -> dict[str, list[Part]]:
        """Images that the dump does not have or that are empty, one of each kind, with one message each."""
        have = {pattern_of(image) for image, _, _ in self.messages()}
        ids = cast(Any, self.every["TaskKobjIdsEntry"][-1])
        numbers = {"netns": ids.net_ns_id, "netdev": ids.net_ns_id, "userns": ids.user_ns_id, "pidns": ids.pid_ns_id}
        found: dict[str, list[Part]] = {}
        for pattern, message in MESSAGES.items():
            if pattern not in have:
                number = numbers.get(pattern.partition("-")[0], 1)
                found[pattern.replace("%", str(number))] = [self.made(message)]
        return found

    def made(self, message: type[Message]) -> Message:
        """A message of this type: one of the dump's where it has any, else one with the required fields alone."""
        if known := self.every.get(message.DESCRIPTOR.name):
            copied = message()
            copied.CopyFrom(known[0])
            return copied
        return filled(message)


def inside(message: Message) -> Iterator[Message]:
    """The message and all those in it."""
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for part in value if descriptor.is_repeated else (value,):
                yield from inside(part)


def filled(message: type[Message]) -> Message:
    """A message with its required fields, each zero or empty."""
    made = message()
    fill(made)
    return made


def fill(message: Any) -> None:
    for descriptor in message.DESCRIPTOR.fields:
        if descriptor.is_required and not message.HasField(descriptor.name):
            if descriptor.message_type is None:
                setattr(message, descriptor.name, descriptor.default_value)
            else:
                getattr(message, descriptor.name).SetInParent()
        if descriptor.is_required and descriptor.message_type is not None:
            fill(getattr(message, descriptor.name))


def twin(name: str, victim: Victim, changed: Mapping[str, bytes | None]) -> Twin:
    """The checkpoint with these files changed, as the real path takes it."""

    def change(forgery: Forgery) -> None:
        for file, content in changed.items():
            forgery.raw(file.removeprefix(FOLDER), content or b"")
            if content is None:
                del forgery.files[file]

    return Twin(name, change, victim)
