"""How mounts of a spec, a request and a dump are told to be the same one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePosixPath

from shared.criu.mounts import MountEntry
from shared.spec import RuntimeSpec

MASK = "/dev/null"
"""runc covers a masked file with it (libcontainer/rootfs_linux.go maskPaths)."""

_UNCONFINED_TYPES = frozenset({"spc_t", "unconfined_t", "unconfined_service_t"})
"""SELinux' types that keep a container from nothing; container-selinux gives privileged ones the first."""


def is_mask(mount: MountEntry, live: RuntimeSpec) -> bool:
    """A covered file of /proc or /sys: handed in by runc under one name for all, by crun under the path of each.

    Source: crun src/libcrun/criu.c (register_masked_paths_mounts).
    """
    return mount.external == MASK or (mount.external == mount.mountpoint and mount.mountpoint in live.masked_paths)


def may_mount(live: RuntimeSpec) -> bool:
    """Whether a process of the pod could mount anything itself.

    It takes CAP_SYS_ADMIN, and neither the runtimes' AppArmor profile nor SELinux' type for containers allows it; what
    profiles of the node's administrator allow, nobody here can tell.
    """
    label = live.selinux_label.split(":")
    return (
        "CAP_SYS_ADMIN" in live.capabilities.bounding
        and live.apparmor_profile in ("", "unconfined")
        and (len(label) < 3 or label[2] in _UNCONFINED_TYPES)
    )


def is_bind(type_: str, options: Sequence[str]) -> bool:
    return type_ == "bind" or "bind" in options or "rbind" in options


def is_read_only(options: Sequence[str]) -> bool:
    """``rro`` is the recursive form (runtime-spec config.md, Linux mount options)."""
    return "ro" in options or "rro" in options


def below(path: str, tops: Sequence[str]) -> bool:
    """Whether it is one of them or in one; all spelt alike."""
    return any(path == top or path.startswith(f"{top}/") for top in tops)


@lru_cache(maxsize=4096)
def spelt_once(path: str) -> str:
    """An absolute path without ``.`` and double slashes, as the kernel tells it."""
    return "/" + str(PurePosixPath("/", path)).lstrip("/")


@lru_cache(maxsize=4096)
def where(path: str) -> str:
    """One spelling a destination: /var/run is a link to /run in every image that matters to runc's own resolution."""
    clean = spelt_once(path)
    return clean.replace("/var/run/", "/run/", 1) if clean.startswith("/var/run/") else clean
