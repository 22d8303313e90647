"""CRIU's own root directory and cgroup namespace: what the worker prepares of them in the plan.

CRIU acts as root on paths that a checkpoint names. Started in a mount namespace whose root holds only what this restore
needs, it finds nothing else by them. The worker writes the list of mounts (``criu-mounts``) and makes the directories
they go onto (``criu-root/``); beside all that comes before, own_root.py mounts them, and ``confined-criu`` in
nri_plugin/runtime (``bin/criu``, first in the runtime's PATH) starts CRIU there. The runtime itself stays in the
node's root: it needs the sockets and directories that CRIU must not reach, and reads of the checkpoint only the names
of its standard streams. All that is listed comes from the live container's spec, nothing from the checkpoint.

By ``manage-cgroups=ignore`` CRIU makes no cgroup namespace either (criu/cgroup.c, prepare_cgroup_namespace): processes
inherit the one that CRIU is started in, which ``criu-root`` makes in the container's own cgroup.

Beside that, own_root.py gives restore-runc a session keyring of its own, which restored processes inherit: CRIU makes
none, and the runtime joins a new one only in the init of a container that it starts.

Images and work directory are not in that root: the runtime passes them to CRIU as descriptors (criu/cr-service.c).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from nri_plugin.restore import own_root
from nri_plugin.restore.mounting import mount_points
from nri_plugin.restore.options import lasting
from nri_plugin.restore.plan import Plan, cgroup_of
from nri_plugin.restore.request import RestoreRequest
from shared.spec import RuntimeSpec

CONFINED_CRIU = Path(__file__).resolve().parent.parent / "runtime" / "confined-criu"

PROGRAMS: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/gnu")
"""Where systems have programs and libraries; own_root.py adds directories of PATH that are elsewhere."""
SETTINGS: Final = ("/etc/alternatives", "/etc/criu", "/etc/selinux")
"""Of /etc: links to programs (iptables), the administrator's options for CRIU, and the policy of labels."""
COPIED: Final = ("/etc/ld.so.cache", "/run/criu.kdat")
"""Where libraries are, and what CRIU found out about the kernel (criu/kerndat.c), which takes it long."""
DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty", "net/tun")
SECURITY: Final = ("/sys/kernel/security", "/sys/fs/selinux")
HIDDEN: Final = ("/proc/sysrq-trigger", "/proc/kcore", "/proc/kmsg", "/proc/kallsyms")
KEPT: Final = (
    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/acpi", "/proc/scsi", "/proc/sys/vm", "/proc/sys/debug",
    "/proc/sys/dev", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/poweroff_cmd",
    "/proc/sys/kernel/usermodehelper",
)  # fmt: skip
"""Read-only: settings by which the kernel runs programs or stops; CRIU sets those of IPC, and pids, below /proc/sys."""
_BINDS: Final = frozenset({"bind", "rbind"})
_PRIVATE: Final = frozenset({"private", "rprivate"})
_CGROUPS: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Bind:
    """One bind mount: ``source`` of the node, at ``target`` in CRIU's root."""

    source: str
    target: str
    options: str = "all"

    @classmethod
    def same(cls, path: str, options: str = "all") -> Bind:
        return cls(path, path, options)


def write_criu_root(plan: Plan, request: RestoreRequest, live: RuntimeSpec) -> None:
    """Writes what ``criu-root`` and ``confined-criu`` go by.

    Where the container's mounts appear on the node (Bidirectional, for privileged pods alone), CRIU has no root of its
    own: volumes there are no peers of the node's, so the mounts would not appear.
    """
    own_cgroups = any(each.type == "cgroup" and not each.path for each in live.namespaces)
    shared = any(option in {"shared", "rshared"} for mount in request.mounts for option in mount.options)
    if shared and not own_cgroups:
        return
    for name in ("bin", "ns"):
        (plan.path / name).mkdir(mode=0o700, exist_ok=True)
    with suppress(FileExistsError):
        (plan.path / "bin/criu").symlink_to(CONFINED_CRIU)
    if own_cgroups:
        (plan.path / "ns/cgroup").touch(mode=0o600)
        plan.write("own-cgroup", f"{cgroup_of(request)}\n")
    if not shared:
        root = plan.path / "criu-root"
        (plan.path / "hidden/folder").mkdir(parents=True, exist_ok=True)
        (plan.path / "hidden/file").touch()
        binds = [*_system(root), *_node(), *_requested(live, plan)]
        plan.write("criu-mounts", _laid_out(root, binds))
        for name in ("go", "keyring"):
            with suppress(FileExistsError):
                os.mkfifo(plan.path / "ns" / name, 0o600)
        plan.write("own-root", f"{sys.executable}\n{own_root.__file__}\n")


def _system(root: Path) -> Iterator[Bind]:
    """Programs, libraries and settings of the node; links and small files are made in ``root`` at once."""
    for folder in ("tmp", "run", "dev", "etc", "proc", "sys"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for path in PROGRAMS:
        if Path(path).is_symlink():
            with suppress(FileExistsError):
                (root / path[1:]).symlink_to(Path(path).readlink())
        elif Path(path).is_dir():
            yield Bind.same(path, "all ro")
    for path in SETTINGS:
        (root / path[1:]).mkdir(parents=True, exist_ok=True)
        yield Bind.same(path, "ro any")
    for path in COPIED:
        with suppress(FileNotFoundError):
            shutil.copyfile(path, root / path[1:])


def _node() -> Iterator[Bind]:
    """The kernel's own file systems, as narrow as CRIU works with, and the devices that it opens."""
    yield Bind.same("/proc", "")
    yield Bind.same("/sys", "ro")
    if _CGROUPS.is_mount() and not (_CGROUPS / "cgroup.controllers").exists():
        # Without a cgroup namespace, the container's mounts of version 1 are bound from here (runc criu_linux.go).
        yield Bind.same(str(_CGROUPS))
    yield from (Bind.same(path, "") for path in SECURITY if Path(path).is_mount())
    yield from (Bind.same(f"/dev/{name}", "") for name in DEVICES if Path("/dev", name).exists())
    yield from (Bind("/dev/null", path, "") for path in HIDDEN if Path(path).exists())
    yield from (Bind.same(path, "ro") for path in KEPT if Path(path).exists())


def _requested(live: RuntimeSpec, plan: Plan) -> Iterator[Bind]:
    """The pod's volumes and namespaces, and CRIU's options for this restore."""
    bound = [mount for mount in live.mounts if mount.type == "bind" or not _BINDS.isdisjoint(mount.options)]
    volumes = {mount.source: mount for mount in bound if mount.source[:1] == "/" and Path(mount.source).exists()}
    slaves = [source for source, mount in volumes.items() if _PRIVATE.isdisjoint(mount.options)]
    wide = dict(_wide(slaves))
    yield from (Bind.same(folder, "all shared") for folder in wide.values())
    for source in volumes:
        yield Bind(source, _below_links(os.path.normpath(source)), "kept" if source in wide else "all")
    for namespace in live.namespaces:
        path = lasting(namespace.path) if namespace.path else ""
        if path and not path.startswith("/proc/"):
            yield Bind.same(path, "")
    yield Bind.same(str(plan.path / "criu.conf"), "ro")


def _wide(sources: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Sources that receive mounts of the node from one and the same mount, and the directory that has them all.

    CRIU makes each of them a slave of the mount that the first of them is on, which must reach as far as all of them
    (criu/mount-v2.c, restore_one_sharing): so they are seen through one mount, in which all else is hidden.
    """
    mounts = mount_points()
    groups: dict[Path, set[str]] = {}
    for source in sources:
        path = Path(source).resolve()
        groups.setdefault(next(each for each in (path, *path.parents) if str(each) in mounts), set()).add(source)
    for group in groups.values():
        if len(group) > 1 and all(os.path.normpath(each) == each for each in group):
            folder = os.path.commonpath(group)
            folder = folder if Path(folder).is_dir() else str(Path(folder).parent)
            yield from ((source, folder) for source in group)


def _below_links(path: str) -> str:
    """Where ``path`` leads in CRIU's root, in which /bin, /lib … are the links that they are on the node."""
    first = f"/{path[1:].partition('/')[0]}"
    return f"{Path(first).resolve()}{path[len(first) :]}" if first in PROGRAMS else path


def _laid_out(root: Path, binds: Iterable[Bind]) -> str:
    """The list of mounts, each after those it lies on; mount points that no other mount has are made in ``root``."""
    by_target = {"/": Bind(str(root), "/", "")}
    for each in binds:
        if "shared" not in by_target.get(each.target, each).options or "shared" in each.options:
            by_target[each.target] = each
    entries = []
    for each in sorted(by_target.values(), key=lambda each: PurePosixPath(each.target).parts):
        parents = {str(parent) for parent in PurePosixPath(each.target).parents}
        if each.target != "/" and by_target["/"].source != "/" and not parents & (by_target.keys() - {"/"}):
            _mount_point(root / each.target[1:], is_directory=Path(each.source).is_dir())
        entries += [each.options, each.source, each.target]
    return "".join(f"{entry}\0" for entry in entries)


def _mount_point(path: Path, *, is_directory: bool) -> None:
    if is_directory:
        path.mkdir(parents=True, exist_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=True)
