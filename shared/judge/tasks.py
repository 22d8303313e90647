"""Everything about processes: their tree, registers, rights, filters, timers and memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory
from shared.errors import Refused
from shared.judge import credentials, memory, processes, registers, seccomp_images, timers
from shared.judge.rules import Fields, Rules
from shared.judge.writing import ImageFile

FIELDS: Final[Fields] = {
    **processes.FIELDS,
    **registers.FIELDS,
    **credentials.FIELDS,
    **seccomp_images.FIELDS,
    **timers.FIELDS,
    **memory.FIELDS,
}


def relations(images: ImageDirectory, dump: Dump) -> Iterator[Refused]:
    """What the images of processes must be to each other."""
    return itertools.chain(
        processes.relations(images, dump),
        timers.relations(images, dump),
        seccomp_images.relations(images, dump),
        memory.relations(images, dump),
    )


def image_files(images: ImageDirectory, dump: Dump, rules: Rules) -> Iterator[ImageFile]:
    """pstree.img, and of each process its core, ids, fs, mm and page map images; pages, segments, seccomp.img."""
    return itertools.chain(
        processes.image_files(images, dump, rules),
        seccomp_images.image_files(images, dump, rules),
        memory.image_files(images, dump, rules),
    )
