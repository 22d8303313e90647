"""A checkpoint's images, read once and judged as far as that takes no pod, and what CRIU gets of them in any pod."""

from __future__ import annotations

from dataclasses import dataclass

from shared.archive import CheckpointFiles
from shared.criu.dump import Dump, dump_of
from shared.criu.images import ImageDirectory
from shared.criu.structure import check_structure
from shared.judge.descriptors import descriptors_file
from shared.judge.table import DANGERS, RULES
from shared.judge.writing import ImageFile


@dataclass(frozen=True, slots=True)
class Reading:
    """A dump whose every message was read and judged by itself."""

    dump: Dump
    files: tuple[ImageFile, ...]
    """Every image but the mount tree, written anew."""


def read(files: CheckpointFiles, *, directory: str = "checkpoint") -> Reading:
    """Raises CheckpointInvalid for what is damaged, Refused for what no pod could have.

    The facts are read from the messages before the rules empty what is derived, so both are of one reading.
    """
    images = ImageDirectory(files, directory)
    dump = dump_of(images)
    check_structure(images, dump.tasks, dump.mounts)
    for danger in DANGERS:
        for refused in danger.relations(images, dump):
            raise refused
    copied = images.copied()
    written = [each for danger in DANGERS for each in danger.image_files(copied, dump, RULES)]
    written.append(descriptors_file(images))
    return Reading(dump, tuple(sorted(written, key=lambda each: each.name)))
