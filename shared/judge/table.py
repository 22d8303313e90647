"""The table: one rule for every field of every message that CRIU's images have, and who enforces and writes.

Making it fails for a field without a rule, one with two, and a rule of a field that does not exist; so does the import
of this module. docs/security.md shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import FieldDescriptor

from shared.criu import criu_pb2
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory
from shared.errors import Refused
from shared.judge import (
    files,
    images,
    inventory,
    ipc,
    kernel_objects,
    mount_images,
    namespace_images,
    socket_fields,
    socket_images,
    socket_relations,
    tasks,
)
from shared.judge.rules import Fields, Rule, Rules
from shared.judge.writing import ImageFile


def _no_relations(images: ImageDirectory, dump: Dump) -> Iterator[Refused]:
    return iter(())


def _no_files(images: ImageDirectory, dump: Dump, rules: Rules) -> Iterator[ImageFile]:
    return iter(())


@dataclass(frozen=True, slots=True)
class Danger:
    """One part of a dump: the rules for its fields, what they must be to each other, and its images."""

    name: str
    fields: Fields
    relations: Callable[[ImageDirectory, Dump], Iterator[Refused]] = _no_relations
    """Raises CheckpointInvalid for damage, yields Refused for what no pod may have."""
    image_files: Callable[[ImageDirectory, Dump, Rules], Iterator[ImageFile]] = _no_files
    """Applies the rules to the messages and writes what does not depend on the pod."""


DANGERS: Final = (
    Danger("inventory", inventory.FIELDS, image_files=inventory.image_files),
    Danger("namespaces", namespace_images.FIELDS, image_files=namespace_images.image_files),
    Danger("mounts", mount_images.FIELDS, image_files=mount_images.image_files),
    Danger("System V objects", ipc.FIELDS, ipc.relations, ipc.image_files),
    Danger("processes", tasks.FIELDS, tasks.relations, tasks.image_files),
    Danger("open files", files.FIELDS, files.relations, files.image_files),
    Danger("sockets", socket_fields.FIELDS, socket_relations.relations, socket_images.image_files),
    Danger("kernel objects", kernel_objects.FIELDS, kernel_objects.relations),
    Danger("foreign images", images.FIELDS),
)


def all_messages() -> Mapping[str, tuple[FieldDescriptor, ...]]:
    """Every message of the format with its fields."""
    return {name: tuple(each.fields) for name, each in criu_pb2.DESCRIPTOR.message_types_by_name.items()}


def joined(dangers: Iterable[Danger]) -> dict[str, dict[str, Rule]]:
    """One table of all; raises ValueError where a field has no rule, or more than one."""
    table: dict[str, dict[str, Rule]] = {}
    for danger in dangers:
        for message, rules in danger.fields.items():
            if message in table:
                raise ValueError(f"{message} has rules in two places")
            table[message] = dict(rules)
    for message, fields in all_messages().items():
        wanted, has = {field.name for field in fields}, set(table.get(message, ()))
        if wanted != has:
            missing, more = sorted(wanted - has), sorted(has - wanted)
            raise ValueError(f"{message} has no rule for {missing}, or a rule for {more}, which it does not have")
    if unknown := table.keys() - all_messages().keys():
        raise ValueError(f"there are no messages {sorted(unknown)}")
    return table


RULES: Final = Rules(joined(DANGERS))
