"""The edits of one dump, each by itself and in random pairs and triples, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from tests.hostile.generator.edits import Edit, FieldPath, serialized, tag, varint
from tests.hostile.generator.fields import Target, message_type, targets
from tests.hostile.generator.layout import framed, head_of, join, pattern_of
from tests.hostile.generator.sample import FOLDER, Sample, filled
from tests.hostile.generator.values import Pools, values

PER_PATTERN: Final = 6
"""Messages of one kind of image that are moved about."""
ELEMENTS: Final = 3
"""Of a repeated field that are changed by themselves."""


@dataclass
class Mutations:
    """Numbered from 0: first every edit by itself, then pairs and triples without end."""

    sample: Sample
    seed: int
    _singles: list[Edit] = field(default_factory=list)

    @cached_property
    def singles(self) -> list[Edit]:
        """Each edit once; those of different fields take turns, so that a short run sees all fields."""
        chance = random.Random(f"{self.seed} {self.sample.name}")
        pools = Pools.of(message for each in self.sample.every.values() for message in each)
        turns: list[list[Edit]] = []
        by_field: dict[object, list[Edit]] = {}
        for target in targets(self.sample):
            by_field.setdefault(target.name, []).extend(_of_field(self.sample, target, pools, chance))
        turns.extend(by_field.values())
        turns.append(list(_of_entries(self.sample)))
        turns.append(list(_of_images(self.sample)))
        for turn in turns:
            rest = turn[1:]  # the first is a value of the field itself
            chance.shuffle(rest)
            turn[1:] = rest
        order: list[Edit] = []
        for round_ in range(max(map(len, turns))):
            order += [turn[round_] for turn in turns if round_ < len(turn)]
        return list(dict.fromkeys(order))

    def number(self, number: int) -> list[Edit]:
        """The edits of one mutation."""
        if number < len(self.singles):
            return [self.singles[number]]
        chance = random.Random(f"{self.seed} {self.sample.name} {number}")
        return chance.sample(self.singles, chance.choice((2, 2, 3)))


def _of_field(sample: Sample, target: Target, pools: Pools, chance: random.Random) -> Iterator[Edit]:
    edit = _Maker(target)
    if target.field.message_type is not None:
        yield from _of_message_field(sample, target, edit)
    elif target.field.is_repeated:
        yield from _of_numbers(target, edit, pools, chance)
    else:
        for value in values(target.field, target.honest, pools, chance):
            yield edit("set", value)
        if target.honest is not None:
            yield edit("clear")
            other = next(iter(values(target.field, target.honest, pools, chance)), target.honest)
            for twice in (target.honest, other):
                yield edit.bytes_of("suffix", serialized(message_type(target.message), target.field, twice))
    if target.field.number == min(each.number for each in target.message.fields) and target.honest is not None:
        yield edit.bytes_of("suffix", tag(1999, 0) + varint(7))
        yield edit.bytes_of("suffix", tag(1998, 2) + varint(4) + b"/etc")
        yield edit.bytes_of("reverse", None)


@dataclass(frozen=True)
class _Maker:
    target: Target

    def __call__(self, how: Any, value: Any = None, index: int | None = None) -> Edit:
        *above, (name, _) = self.target.path
        return Edit(self.target.image, self.target.entry, (*above, (name, index)), how, value)

    def bytes_of(self, how: Any, value: bytes | None) -> Edit:
        """A change of the bytes of the message that has the field."""
        above: FieldPath = self.target.path[:-1]
        return Edit(self.target.image, self.target.entry, above, how, value)


def _of_message_field(sample: Sample, target: Target, edit: _Maker) -> Iterator[Edit]:
    kind = message_type(target.field.message_type)
    known = [each.SerializePartialToString() for each in sample.every.get(kind.DESCRIPTOR.name, ())]
    made = list(dict.fromkeys([filled(kind).SerializePartialToString(), *known[:2], *known[-2:]]))
    if not target.field.is_repeated:
        for content in made:
            yield edit("message", content)
        if target.honest is not None:
            yield edit("clear")
            again = serialized(message_type(target.message), target.field, target.honest)
            yield edit.bytes_of("suffix", again)
        return
    for content in made:
        yield edit("append message", content)
    yield from _of_elements(target.honest or (), edit)


def _of_elements(honest: Sequence[object], edit: _Maker) -> Iterator[Edit]:
    if honest:
        yield edit("clear")
    for index in sorted({0, len(honest) // 2, len(honest) - 1} if honest else ()):
        yield edit("drop", None, index)
        if index + 1 < len(honest):
            yield edit("swap", None, index)


def _of_numbers(target: Target, edit: _Maker, pools: Pools, chance: random.Random) -> Iterator[Edit]:
    honest = list(target.honest or ())
    yield from _of_elements(honest, edit)
    for value in [*honest[:1], *values(target.field, honest[-1] if honest else None, pools, chance)]:
        yield edit("append", value)
    for index in sorted({0, len(honest) // 2, len(honest) - 1} if honest else ())[:ELEMENTS]:
        for value in values(target.field, honest[index], pools, chance):
            yield edit("set", value, index)


def _of_entries(sample: Sample) -> Iterator[Edit]:
    """Messages of an image removed, doubled, moved, joined by a decoy; raw bytes cut, added to and changed."""
    seen: dict[tuple[str | None, str], int] = {}
    for image in sample.images():
        parts = sample.parts(image)
        for number, part in enumerate(parts):
            kind = (pattern_of(image), "" if isinstance(part, bytes) else part.DESCRIPTOR.name)
            seen[kind] = seen.get(kind, 0) + 1
            if seen[kind] > PER_PATTERN:
                continue
            yield Edit(image, number, (), "remove")
            yield Edit(image, number, (), "exchange")
            if isinstance(part, bytes):
                for raw in (part[:-1], part + b"\0", part + b"\0\0\0\0", b"\xff" * len(part), part * 2, b""):
                    yield Edit(image, number, (), "raw", raw)
                continue
            content = part.SerializePartialToString()
            yield Edit(image, number, (), "insert", content)
            yield Edit(image, len(parts), (), "insert", content)
            yield Edit(image, number, (), "insert", filled(type(part)).SerializePartialToString())


def _of_images(sample: Sample) -> Iterator[Edit]:
    """Whole files: gone, cut, with bytes behind the last message, under other names, of kinds nobody knows."""
    seen: dict[str | None, int] = {}
    for name in [each.removeprefix(FOLDER) for each in sample.files if each.startswith(FOLDER)]:
        pattern = pattern_of(name) or name.partition("-")[0]
        seen[pattern] = seen.get(pattern, 0) + 1
        if seen[pattern] > 3:
            continue
        content = sample.files[FOLDER + name]
        yield Edit(name, -1, (), "file", None)
        for tail in (b"\0", b"\0\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff", framed(b"\x08\x01"), content[-64:]):
            yield Edit(name, -1, (), "tail", tail)
        for changed in (content[:-1], content[: len(content) // 2], b"", content[:8], content[:4] + content):
            yield Edit(name, -1, (), "file", changed)
        for other in _other_names(sample, name):
            yield Edit(other, -1, (), "file", content)
    yield from _foreign(sample)


def _other_names(sample: Sample, name: str) -> Iterator[str]:
    stem, dash, number = name.removesuffix(".img").rpartition("-")
    if dash and number.isalnum():
        for other in ("0", "99", f"0{number}", f"{number}0", "4294967295", "-1"):
            if f"{FOLDER}{stem}-{other}.img" not in sample.files:
                yield f"{stem}-{other}.img"
    yield from (f"sub/{name}", f"{name}.img", f"{name}.bak", f"pages-{name}", name.upper(), f" {name}")


def _foreign(sample: Sample) -> Iterator[Edit]:
    """Images of every kind that the dump does not have, and of kinds that CRIU itself does not have."""
    for image, parts in sample.absent.items():
        yield Edit(image, -1, (), "file", join(image, parts))
        yield Edit(image, -1, (), "file", head_of(pattern_of(image) or ""))
    for name in ("route-10.img", "route6-10.img", "iptables-10.img", "nftables-10.img", "ifaddr-10.img", "rule-10.img",
                 "unknown.img", "plugin-1.img", "amdgpu-kfd-1.img", "criu.conf", "action-script", "restore.log",
                 "irmap-cache", "parent", "inventory.img.img", "tmpfs-1.tar.gz.img", "tmpfs-dev-1.tar.gz.img",
                 "autofs-1.img", "tcp-stream-1.img", "ghost-file-ff.img", "pages-99.img"):  # fmt: skip
        if FOLDER + name not in sample.files:
            yield Edit(name, -1, (), "file", b"x")
            yield Edit(name, -1, (), "file", head_of("core-%.img"))
