"""No cgroup of a checkpoint is restored, whatever the runtime asks CRIU for.

``manage-cgroups=ignore`` in criu.conf keeps CRIU from it under runc. crun before 1.26 gives CRIU that file in an
environment variable, and its own request, which wins, manages cgroups: CRIU made those that the dump names, with their
limits and device rules. So CRIU reads an image whose sets have no cgroups in them (criu/cgroup.c: move_in_cgroup goes
through a set's controllers, prepare_cgroup_sfd through the image's).
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.criu.dump import Dump
from shared.criu.images import Kind


def without_cgroups(dump: Dump) -> Mapping[str, bytes]:
    """The image, by name, to use in place of the dump's; none where the dump has none."""
    highest = max((task.cgroup_set for task in dump.tasks), default=0)
    if not highest:
        return {}
    # CRIU numbers sets from 1 on. CgroupEntry: 1 = sets, each a CgSetEntry: 1 = id (images/cgroup.proto).
    sets = [b"\x08" + _varint(number) for number in range(1, min(highest, _SETS_MAX) + 1)]
    entry = b"".join(b"\x0a" + _varint(len(each)) + each for each in sets)
    return {Kind.CGROUP.file(): Kind.CGROUP.header + len(entry).to_bytes(4, "little") + entry}


_SETS_MAX = 1 << 16
"""No machine has more processes; CRIU refuses a set that it does not know."""


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))
