"""Where CRIU writes when it makes the AIO rings of a process again: /dev/null, as root, a byte for each request done.

It opens that by its path in the container's root, through links (criu/pie/restorer.c, restore_aio_ring), and what lies
in /dev is the checkpoint's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from shared.criu.criu_pb2 import MmEntry
from shared.criu.dump import Dump
from shared.criu.images import Kind
from shared.errors import Refused
from shared.judge.devices import RUNTIME_DEVICES
from shared.special_files import SpecialFile

_PLACES: Final = frozenset({"/dev", "/dev/null"})


def ring_refusals(dump: Dump, special: Sequence[SpecialFile]) -> Iterator[Refused]:
    """FileExceeds for a process with AIO rings where /dev/null is a link, or not known to be the device.

    ``special``: of the archives that are unpacked as root.
    """
    images = dump.source
    if not any(task.alive and images.one(Kind.MM, MmEntry, task.pid).aios for task in dump.tasks):
        return
    found = {(each.kind, each.major, each.minor) for each in special if each.path in _PLACES}
    if found != {("character device", *RUNTIME_DEVICES["/dev/null"])}:
        yield Refused(
            "FileExceeds",
            "a process of the checkpoint has asynchronous input and output (aio) set up, and /dev/null is not the "
            "device in it: CRIU would write to another file, as root; take a new checkpoint when /dev/null is there",
        )
