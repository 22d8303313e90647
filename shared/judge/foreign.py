"""Messages of images that CRIU never gets: those that change the node, and those that a restore does not need.

AppArmor policies, automounts and binary formats would be set up in the node's kernel; a dump with such an image is
refused as a whole (images.py). Cgroups are the runtime's: it has put CRIU into the container's own, and CRIU is told to
leave them alone (manage-cgroups=ignore), so that it takes a missing cgroup.img for an empty one (criu/cgroup.c,
prepare_cgroup). Statistics are read by people alone.
"""

from __future__ import annotations

from typing import Final

from shared.judge.rules import Fields, Rule, default, derived

_NODE: Final = default("the image is refused as a whole: CRIU would change the node's kernel")
_CGROUP: Final = derived("the image is not written: the container's cgroup is the runtime's")
_STATISTICS: Final = derived("the image is not written: no restore reads it")


def _all(rule: Rule, *names: str) -> dict[str, Rule]:
    return dict.fromkeys(names, rule)


FIELDS: Final[Fields] = {
    "AaPolicy": _all(_NODE, "name", "blob"),
    "AaNamespace": _all(_NODE, "name", "policies", "namespaces"),
    "ApparmorEntry": _all(_NODE, "namespaces"),
    "AutofsEntry": _all(_NODE, "fd", "pgrp", "timeout", "minproto", "maxproto", "mode", "uid", "gid", "read_fd"),
    "BinfmtMiscEntry": _all(_NODE, "name", "enabled", "flags", "extension", "magic", "mask", "offset", "interpreter"),
    "CgroupPerms": _all(_CGROUP, "mode", "uid", "gid"),
    "CgroupPropEntry": _all(_CGROUP, "name", "value", "perms"),
    "CgroupDirEntry": _all(_CGROUP, "dir_name", "children", "properties", "dir_perms"),
    "CgControllerEntry": _all(_CGROUP, "cnames", "dirs", "is_threaded"),
    "CgMemberEntry": _all(_CGROUP, "name", "path", "cgns_prefix"),
    "CgSetEntry": _all(_CGROUP, "id", "ctls"),
    "CgroupEntry": _all(_CGROUP, "sets", "controllers"),
    "DumpStatsEntry": _all(
        _STATISTICS,
        "freezing_time",
        "frozen_time",
        "memdump_time",
        "memwrite_time",
        "pages_scanned",
        "pages_skipped_parent",
        "pages_written",
        "irmap_resolve",
        "pages_lazy",
        "page_pipes",
        "page_pipe_bufs",
        "shpages_scanned",
        "shpages_skipped_parent",
        "shpages_written",
    ),
    "RestoreStatsEntry": _all(
        _STATISTICS, "pages_compared", "pages_skipped_cow", "forking_time", "restore_time", "pages_restored"
    ),
    "StatsEntry": _all(_STATISTICS, "dump", "restore"),
}
