"""Images of a dump that CRIU would act on beyond the container, or that nobody has looked at.

CRIU loads AppArmor profiles into the node's kernel (criu/apparmor.c), registers binary formats (filesystems.c), hands
firewall rules and routes to programs of the node (net.c), and plugins read whatever they like. No dump of a pod's
container has any of them: its network namespace is the pod's, made before. Of cgroups, CRIU makes those that a dump
names, sets their properties and moves the processes there (cgroup.c): crun 1.21 has it do so, whatever it is told, so
that a restore has neither the image nor numbers of sets in the core images.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from shared.criu.dump import Dump
from shared.criu.magic import MAGIC
from shared.errors import Refused
from shared.judge.rules import Fields, default, derived

_FOREIGN: Final = default("the image is refused as a whole: CRIU would change the node's kernel by it")
_CGROUP: Final = derived("no cgroup image is written: the processes stay where the runtime puts them, crun's too")
_COUNTED: Final = derived("no statistics are written: CRIU reads none")

FIELDS: Final[Fields] = {
    "AaPolicy": dict.fromkeys(("name", "blob"), _FOREIGN),
    "AaNamespace": dict.fromkeys(("name", "policies", "namespaces"), _FOREIGN),
    "ApparmorEntry": {"namespaces": _FOREIGN},
    "AutofsEntry": dict.fromkeys(
        ("fd", "pgrp", "timeout", "minproto", "maxproto", "mode", "uid", "gid", "read_fd"), _FOREIGN
    ),
    "BinfmtMiscEntry": dict.fromkeys(
        ("name", "enabled", "interpreter", "flags", "extension", "magic", "mask", "offset"), _FOREIGN
    ),
    "CgroupEntry": {"sets": _CGROUP, "controllers": _CGROUP},
    "CgSetEntry": {"id": _CGROUP, "ctls": _CGROUP},
    "CgMemberEntry": {"name": _CGROUP, "path": _CGROUP, "cgns_prefix": _CGROUP},
    "CgControllerEntry": {"cnames": _CGROUP, "dirs": _CGROUP, "is_threaded": _CGROUP},
    "CgroupDirEntry": dict.fromkeys(("dir_name", "children", "properties", "dir_perms"), _CGROUP),
    "CgroupPropEntry": {"name": _CGROUP, "value": _CGROUP, "perms": _CGROUP},
    "CgroupPerms": {"mode": _CGROUP, "uid": _CGROUP, "gid": _CGROUP},
    "StatsEntry": {"dump": _COUNTED, "restore": _COUNTED},
    "DumpStatsEntry": dict.fromkeys(
        (
            "freezing_time", "frozen_time", "memdump_time", "memwrite_time", "pages_scanned", "pages_skipped_parent",
            "pages_written", "irmap_resolve", "pages_lazy", "page_pipes", "page_pipe_bufs", "shpages_scanned",
            "shpages_skipped_parent", "shpages_written",
        ),
        _COUNTED,
    ),
    "RestoreStatsEntry": dict.fromkeys(
        ("pages_compared", "pages_skipped_cow", "forking_time", "restore_time", "pages_restored"), _COUNTED
    ),
}  # fmt: skip

_ACTED_ON: Final = frozenset({
    "apparmor.img", "autofs-%.img", "binfmt-misc.img", "ext-files.img", "netdev-%.img", "tunfile.img", "userns-%.img",
})  # fmt: skip
_WITHOUT_MAGIC: Final = re.compile(
    r"pages-\d+\.img|tmpfs-(dev-)?\d+\.tar\.gz\.img|descriptors\.json|stats-(dump|restore)|dump\.log|restore\.log"
    r"|cgroup\.img|irmap-cache\.img|irmap-cache"
)
_NUMBER: Final = re.compile(r"-[0-9a-f]+(?=\.img$)")
_TMPFS: Final = re.compile(r"tmpfs-(dev-)?(\d+)\.tar\.gz\.img")


def image_refusals(dump: Dump) -> Iterator[Refused]:
    """ImageForeign, naming the image."""
    for name in dump.images:
        pattern = name if name in MAGIC else _NUMBER.sub("-%", name)
        known = (pattern in MAGIC and pattern not in _ACTED_ON) or _WITHOUT_MAGIC.fullmatch(name)
        if not known or not _has_a_mount(name, dump):
            yield Refused(
                "ImageForeign",
                f"the checkpoint has the CRIU image {name}, which no container of a pod has or which would change the "
                "node; take a new checkpoint through the container runtime",
            )
    if dump.inventory.plugins:
        plugins = ", ".join(dump.inventory.plugins)[:120]
        yield Refused(
            "ImageForeign",
            f"the checkpoint was made with plugins of CRIU ({plugins}), which decide by themselves what they restore; "
            "take a new checkpoint without them",
        )


def _has_a_mount(name: str, dump: Dump) -> bool:
    """A tmpfs' content belongs to a mount of the dump, or CRIU would not read it."""
    if not (found := _TMPFS.fullmatch(name)):
        return True
    number = int(found[2])
    return any((mount.device if found[1] else mount.id) == number for mount in dump.mounts)
