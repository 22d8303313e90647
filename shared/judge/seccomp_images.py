"""seccomp.img: which threads the filters of a dump really confine, and the image that CRIU confines them by.

Sources: shared/criu/seccomp_filters.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.criu.criu_pb2 import SeccompEntry
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind
from shared.criu.seccomp_filters import INSTRUCTION_BYTES, LOG, MODE_FILTER, TSYNC, chain, shares_filters
from shared.errors import Refused
from shared.judge.naming import name
from shared.judge.rules import Fields, Rules, bounded
from shared.judge.seccomp_program import INSTRUCTIONS_MAX
from shared.judge.writing import ImageFile, image_file

FIELDS: Final[Fields] = {
    "SeccompEntry": {"seccomp_filters": bounded("each has rules of its own")},
    "SeccompFilter": {
        "filter": bounded(
            "it is a program that a kernel takes; CRIU counts its instructions in 16 bits",
            lambda program: 0 < len(program) <= INSTRUCTIONS_MAX * INSTRUCTION_BYTES,
        ),
        "prev": bounded("it is another filter, and leads to an end"),
        "flags": bounded(
            "a filter may be logged, and shared by all threads where the others have none; another flag would leave a "
            "descriptor open, or weaken the processor's protection",
            lambda flags: not flags & ~(TSYNC | LOG),
        ),
    },
}


def relations(images: ImageDirectory, dump: Dump) -> Iterator[Refused]:
    """FieldExceeds where a filter is to be shared by threads that the kernel would not give it to."""
    image = images.path(Kind.SECCOMP.file())
    for task in dump.tasks:
        if len(task.threads) < 2 or shares_filters(task, dump.filters):
            continue
        for thread in task.threads:
            if thread.seccomp_mode != MODE_FILTER:
                continue
            if any(each.flags & TSYNC for each in chain(dump.filters, thread.seccomp_filter or 0)):
                yield Refused(
                    "FieldExceeds",
                    f"{image} marks a filter of process {name(task)} as shared by its threads, some of which have "
                    "filters of their own or are to get only part of it; the kernel would install none of it, so take "
                    "a new checkpoint",
                )
                break


def image_files(images: ImageDirectory, dump: Dump, rules: Rules) -> Iterator[ImageFile]:
    """seccomp.img with the filters that threads have, in their order."""
    written = SeccompEntry()
    if dump.filters:
        entry = images.one(Kind.SECCOMP, SeccompEntry)
        rules.apply(entry, images.path(Kind.SECCOMP.file()))
        written = entry
    yield image_file(Kind.SECCOMP, [written])
