"""Files that the restored processes would have open against what the live spec lets them open.

CRIU opens each again as root before it drops to the dumped credentials (criu/files.c and the files-*.c, sk-*.c).
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator, Sequence, Set
from typing import Final

from shared.criu.dump import Dump
from shared.criu.open_files import NamespaceFile, OpenFile, RegularFile, Terminal
from shared.errors import Refused
from shared.judge.devices import RUNTIME_DEVICES
from shared.judge.links import socket_paths
from shared.judge.mount_tree import uncovered
from shared.judge.paths import below, is_mask, where
from shared.judge.places import foreign, place_refusals, watches
from shared.judge.sockets import socket_refusals
from shared.judge.timers import timer_refusals
from shared.judge.unix_sockets import unix_socket_refusals
from shared.spec import RuntimeSpec

_NEEDS: Final = {
    "packetsk": ("CAP_NET_RAW", "a packet socket"),
    "tun": ("CAP_NET_ADMIN", "a tun device"),
    "fanotify": ("CAP_SYS_ADMIN", "a fanotify watch"),
}
_TERMINALS: Final = "/dev/pts/"
_PSEUDO_TERMINAL, _CONTROLLING = 1, 4
"""tty.proto, TtyType: PTY, and /dev/tty, which is whatever terminal the session has."""
_GUARDED: Final = frozenset({
    "auxv", "clear_refs", "environ", "io", "maps", "mem", "numa_maps", "pagemap", "patch_state", "personality", "smaps",
    "smaps_rollup", "stack", "syscall", "timers",
})  # fmt: skip
"""Files of /proc/<pid> that only who may trace the process can open (fs/proc/base.c, ptrace(2))."""
_PROC_LINKS: Final = frozenset({"cwd", "exe", "root"})
"""Entries of /proc/<pid> that lead elsewhere: at that moment to CRIU's own program, say …"""
_PROC_LINK_FOLDERS: Final = frozenset({"fd", "map_files", "ns"})
"""… and directories of such."""
_TELLS_OPENER: Final = {
    "iomem": "CAP_SYS_ADMIN",
    "ioports": "CAP_SYS_ADMIN",
    "kallsyms": "CAP_SYSLOG",
    "kmsg": "CAP_SYSLOG",
    "modules": "CAP_SYSLOG",
    "pagemap": "CAP_SYS_ADMIN",
    "stack": "CAP_SYS_ADMIN",
}
"""Files of /proc that look at the rights of who opened them (kernel/resource.c, kernel/kallsyms.c, fs/proc/kmsg.c,
kernel/module/procfs.c, fs/proc/task_mmu.c, fs/proc/base.c): addresses of the kernel and of memory."""


def open_file_refusals(dump: Dump, live: RuntimeSpec, links: Set[str] = frozenset()) -> Iterator[Refused]:
    """FileExceeds naming what is open, ProtectedPathOpen naming the path, DeviceExceeds, SocketExceeds, and
    RootDirectoryDiffers. ``links``: of the tmpfs mounts that CRIU fills."""
    masked, read_only = tuple(map(where, live.masked_paths)), tuple(map(where, live.readonly_paths))
    devices = {where(path) for path in (*RUNTIME_DEVICES, *(device.path for device in live.devices))}
    masks = {(mount.id, mount.mountpoint) for mount in dump.mounts if is_mask(mount, live)}
    processes_at = {"/proc"} | {where(mount.mountpoint) for mount in dump.mounts if mount.fstype == "proc"}
    open_masks = tuple(itertools.chain(*uncovered(dump, live, present=lambda path: True)))
    processes = _own_processes(dump)
    for file in dump.files:
        yield from _kind(file, dump, live)
        if (
            isinstance(file, RegularFile) and (file.mount, file.path) not in masks
        ):  # whoever opens a masked file gets the mask
            yield from _once(file)
            writing = file.flags & os.O_ACCMODE != os.O_RDONLY
            yield from _path(file.path, writing, masked, read_only)
            yield from _process_link(file.path, processes_at)
            yield from _opener(file, live)
            yield from _folder(file, open_masks)
            yield from _other_process(file, processes, live)
            yield from _device(file, devices, live)
    for watch in watches(dump):
        yield from _path(watch.path, False, masked, read_only)
        yield from _process_link(watch.path, processes_at)
    yield from itertools.chain(
        place_refusals(dump, live, links),
        socket_refusals(dump, live),
        unix_socket_refusals(dump, links),
        timer_refusals(dump, live),
        _roots(dump, live),
    )
    for path in socket_paths(dump):
        yield from _process_link(path, processes_at)


def _kind(file: OpenFile, dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    needed, what = _NEEDS.get(file.kind, ("", ""))
    rights = live.capabilities.bounding
    if needed and needed not in rights:
        yield _needs(what, needed)
    if file.kind == "bpfmap":
        yield Refused(
            "FileExceeds",
            "the checkpoint has a BPF map open, which cannot be restored; take a new checkpoint when it is closed",
        )
    if file.kind == "ext" or file.kind.startswith("unknown-") or (isinstance(file, RegularFile) and file.external):
        yield foreign("a file of the node")
    if isinstance(file, NamespaceFile):
        outside = set(dump.inventory.ids.namespaces)
        own = {number for task in dump.tasks for number in task.ids.namespaces} - outside
        if file.namespace not in own and not privileged(live):
            yield foreign("a namespace of the node")
    if isinstance(file, Terminal) and not privileged(live):
        kind = dump.terminals.get(file.info)
        if kind not in (_PSEUDO_TERMINAL, _CONTROLLING):
            yield Refused(
                "DeviceExceeds",
                "the checkpoint has a console or serial line of the node open, which the pod does not give the "
                "container; take a new checkpoint",
            )


def _needs(what: str, capability: str) -> Refused:
    return Refused(
        "FileExceeds",
        f"the checkpoint has {what} open, which takes {capability} and the pod does not grant it; add it to the "
        "container's capabilities if that is meant",
    )


def _once(file: RegularFile) -> Iterator[Refused]:
    """The kernel forgets how a file was made (fs/open.c, do_dentry_open); CRIU would do that again, as root."""
    if file.flags & (os.O_CREAT | os.O_EXCL | os.O_TRUNC):
        yield Refused(
            "FileExceeds",
            f"the checkpoint would create or empty {file.path} when it opens it, which no file that was open says; "
            "take a new checkpoint",
        )


def _path(name: str, writing: bool, masked: Sequence[str], read_only: Sequence[str]) -> Iterator[Refused]:
    path = where(name)
    hidden = below(path, masked)
    if hidden or (writing and below(path, read_only)):
        yield Refused(
            "ProtectedPathOpen",
            f"the checkpoint has {name} open{'' if hidden else ' for writing'}, which the pod's container may not "
            "reach; take the checkpoint from an unprivileged container",
        )


def _process_link(name: str, tops: Set[str]) -> Iterator[Refused]:
    """The path of an open file never has such a link in it, for the kernel tells the link's target. ``tops``: where
    the dump has a proc file system; a container that may mount has it at other places, too."""
    path = where(name)
    for top in tops:
        if not below(path, (top,)):
            continue
        parts = path.removeprefix(top).split("/")[2:]
        if _PROC_LINKS.intersection(parts) or _PROC_LINK_FOLDERS.intersection(parts[:-1]):
            yield foreign(f"{name}, a file by way of a process' links,")


def _opener(file: RegularFile, live: RuntimeSpec) -> Iterator[Refused]:
    """CRIU opens them with every right, and the processes would go on reading with those."""
    parts = where(file.path).split("/")
    needed = _TELLS_OPENER.get(parts[-1]) if parts[1] == "proc" else None
    if parts[1:3] == ["sys", "module"] and "sections" in parts:  # kernel/module/sysfs.c
        needed = "CAP_SYSLOG"
    if parts[1:3] == ["sys", "devices"] and parts[-1] == "config":  # drivers/pci/pci-sysfs.c, pci_read_config
        needed = "CAP_SYS_ADMIN"
    if needed and not {needed, "CAP_SYS_ADMIN"} & live.capabilities.bounding:
        yield _needs(file.path, needed)


def _folder(file: RegularFile, uncovered_paths: Sequence[str]) -> Iterator[Refused]:
    """What is covered after the restore (corrections.py) stays reachable from a directory that was opened before."""
    if file.mode is not None and stat.S_ISDIR(file.mode) and below(where(file.path), uncovered_paths):
        yield Refused(
            "ProtectedPathOpen",
            f"the checkpoint has the directory {file.path} open, or works in it, which the pod's container may not "
            "change; take the checkpoint from an unprivileged container",
        )


def _own_processes(dump: Dump) -> frozenset[str]:
    """Names below /proc of what CRIU makes: tasks, their threads, and for a moment those that had ended.

    A file of the latter stays open after its process, so a parent that looks at its children often has one. Making them
    fails where somebody else has the number, which CRIU keeps until every file is open (criu/files-reg.c,
    collect_remap_dead_process; criu/pie/restorer.c, wait_helpers), so it is never another process' file that is opened.
    """
    threads = {thread.tid for task in dump.tasks for thread in task.threads}
    return frozenset(map(str, {task.pid for task in dump.tasks} | threads | dump.ended)) | {"self", "thread-self"}


def _other_process(file: RegularFile, own: Set[str], live: RuntimeSpec) -> Iterator[Refused]:
    """Of a container beside it in the pod, or of the node."""
    parts = where(file.path).split("/")
    if len(parts) < 4 or parts[1] != "proc" or not parts[2].isdecimal() or parts[2] in own:
        return
    writing = (file.flags & os.O_ACCMODE) != os.O_RDONLY
    if (writing or _GUARDED.intersection(parts[3:])) and "CAP_SYS_PTRACE" not in live.capabilities.bounding:
        yield Refused(
            "FileExceeds",
            f"the checkpoint has {file.path} open, of a process that is not its own, which takes CAP_SYS_PTRACE and "
            "the pod does not grant it; add it to the container's capabilities if that is meant",
        )


def _device(file: RegularFile, devices: set[str], live: RuntimeSpec) -> Iterator[Refused]:
    if file.mode is None:
        if file.path.rpartition("/")[2].startswith("link_remap."):
            # CRIU's own link to a deleted file that has other names (files-reg.c, create_link_remap), taken away again
            # where the processes go on (cr-dump.c, cr_dump_finish), before anybody packs the changed files.
            yield Refused(
                "FileExceeds",
                f"the checkpoint was made with CRIU's option link-remap and needs {file.path}, which CRIU took away "
                "when the processes went on; take a new checkpoint without it when no process has a deleted file open "
                "that has other names",
            )
            return
        # Without it CRIU does not look what kind of file it has opened (files-reg.c, validate_file).
        yield Refused(
            "FileExceeds",
            f"the checkpoint does not say what kind of file {file.path} is, which it has open; take a new checkpoint "
            "with CRIU 3.16 or later",
        )
        return
    if not (stat.S_ISCHR(file.mode) or stat.S_ISBLK(file.mode)):
        return
    path = where(file.path)
    if path not in devices and not path.startswith(_TERMINALS) and not privileged(live):
        yield Refused(
            "DeviceExceeds",
            f"the checkpoint has the device {file.path} open, which the pod does not give the container; add the "
            "device to the pod or take a new checkpoint",
        )


def _roots(dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """RootDirectoryDiffers: chroot(2) takes a capability."""
    if "CAP_SYS_CHROOT" in live.capabilities.bounding:
        return
    regular = {file.id: file for file in dump.files if isinstance(file, RegularFile)}
    for task in dump.tasks:
        if task.alive and (root := regular.get(task.root_file)) and where(root.path) != "/":
            yield Refused(
                "RootDirectoryDiffers",
                f"process {task.pid} ({task.comm}) of the checkpoint has {root.path} for its root directory, which "
                "takes CAP_SYS_CHROOT and the pod does not grant it; add it to the container's capabilities if that is "
                "meant",
            )


def privileged(live: RuntimeSpec) -> bool:
    """The CRI gives a privileged container every device of the node."""
    return "CAP_SYS_ADMIN" in live.capabilities.bounding and not live.masked_paths
