"""Will this dump restore on this node? Asked before CRIU is, so that the answer is a sentence and nothing was begun.

The rules are those of ``kubectl restore check`` (shared/preflight); what a rule says fails is refused here by its code.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from nri_plugin.restore import rootfs
from nri_plugin.restore.host_ports import check_host_ports
from nri_plugin.restore.kernel import KernelCheck
from nri_plugin.restore.node import Node, OpenedCheckpoint
from nri_plugin.restore.request import RestoreRequest
from nri_plugin.restore.root_files import look_up
from nri_plugin.restore.root_links import check_root_links
from nri_plugin.restore.socket_places import check_socket_places
from nri_plugin.restore.volume_files import check_volume_files
from shared.archive import CheckpointFiles
from shared.criu.dump import Dump
from shared.criu.dump_host import read_dump_host
from shared.criu.images import ImageDirectory
from shared.errors import Refused, Unavailable
from shared.judge.host_ports import host_ports
from shared.judge.links import check_links
from shared.judge.processes import process_refusals
from shared.judge.socket_places import socket_paths_on_volumes
from shared.judge.volume_files import volume_files
from shared.preflight.cpu import dump_needs, level_needs
from shared.preflight.files import compare_files, expected_files
from shared.preflight.findings import Finding, Level
from shared.preflight.memory import check_memory_limit, least_bytes
from shared.preflight.platform import check_cpu, check_platform
from shared.spec import RuntimeSpec

REASONS: Final = {"FileMissing": "RootFileMissing"}
"""Codes of findings that mean something else among the reasons of a node."""
PLAN_BYTES_MIN: Final = 4 << 20
"""Room for a plan and CRIU's log."""
_UNLIMITED: Final = 1 << 62
"""cgroup v1 says so of no limit (PAGE_COUNTER_MAX, in bytes)."""


def check(node: Node, request: RestoreRequest, opened: OpenedCheckpoint) -> None:
    """What can be said before the container exists; raises Refused, or Unavailable for what may pass."""
    check_machine(node, opened)
    check_memory(opened, limit_bytes(request.memory_bytes, request.memory_swap_bytes))
    fills_root = request.checkpoint is not None or not (
        request.native
        or opened.image.layered
        or opened.image.digest in node.lowers
        or node.containerd.has_snapshot(rootfs.snapshot_name(opened.image))
    )
    check_disk(node, opened, fills_root=fills_root)


def check_rest(
    node: Node, request: RestoreRequest, opened: OpenedCheckpoint, snapshot_key: str, overlay: rootfs.Overlay | None
) -> bool:
    """What can be said once the root file system is there: ``overlay``, or the container's own; raises Refused.

    Returns whether the root was looked through.
    """
    check_kernel(node.kernel())
    if request.native:  # containerd fills the root of its own restores when they are started
        return False
    if overlay is None and opened.image.digest in node.compared:
        return True
    root = overlay or rootfs.own(node.containerd, snapshot_key)
    if root is None:  # a snapshotter of block devices
        check_links(opened.dump, root_unseen=True, kernel=platform.release())
        return False
    check_root(node, opened, root)
    return True


def check_volumes(dump: Dump, live: RuntimeSpec) -> None:
    """What CRIU would do as root on volumes and in the node's network; last of all, for others change these."""
    check_socket_places(socket_paths_on_volumes(dump, live))
    check_volume_files(volume_files(dump, live))
    check_host_ports(host_ports(dump, live))


def check_machine(node: Node, opened: OpenedCheckpoint, pid_max: Path = Path("/proc/sys/kernel/pid_max")) -> None:
    """Processor, kernel, cgroups, security module and CRIU; looked at once per image and CRIU."""
    facts = node.facts()
    if node.suited.get(opened.image.digest) is facts:
        return
    for refused in process_refusals(opened.dump, int(pid_max.read_text())):
        raise refused
    with opened.files() as files:
        host, images = read_dump_host(files), ImageDirectory(files, "checkpoint")
        _refuse(check_platform(opened.dump, host, opened.checkpoint.criu_version, facts))
        _refuse([check_cpu(dump_needs(images, opened.dump), host, facts)])
    node.suited[opened.image.digest] = facts


def check_kernel(found: KernelCheck) -> None:
    """Raises Refused("KernelUnfit") for what CRIU calls absolutely required."""
    if found.lacks:
        raise Refused(
            "KernelUnfit", f"this node's kernel lacks what CRIU needs: {found.lacks[0][:200]}; see criu check there"
        )


def check_memory(opened: OpenedCheckpoint, limit_bytes: int | None, meminfo: Path = Path("/proc/meminfo")) -> None:
    """The container's limit (of memory and swap together; None: it has none), and what the node has left."""
    needed = opened.dump.memory_bytes
    free = free_memory_bytes(meminfo)
    if needed <= min(limit_bytes or _UNLIMITED, free):
        return
    with opened.files() as files:
        images = ImageDirectory(files, "checkpoint")
        if limit_bytes:
            _refuse(check_memory_limit(images, opened.dump, limit_bytes))
        if free < needed and free < (least := least_bytes(images, opened.dump)):
            raise Unavailable(
                "NodeMemoryLow",
                f"the processes hold {least >> 20} MiB of memory, this node has {free >> 20} MiB left; free some, or "
                "restore on another node",
            )


def limit_bytes(memory: int | None, with_swap: int | None, swaps: Path = Path("/proc/swaps")) -> int | None:
    """What a container may take, swap included, by the fields ``limit`` and ``swap`` of its spec; None: no limit."""
    if not memory or not 0 < memory < _UNLIMITED:
        return None
    if with_swap == memory or not swaps.exists() or len(swaps.read_text().splitlines()) < 2:
        return memory
    return with_swap if with_swap and 0 < with_swap < _UNLIMITED else None


def free_memory_bytes(meminfo: Path) -> int:
    """What can still be had without killing anything (proc_meminfo(5), in KiB)."""
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return sum(int(lines[name].split()[0]) << 10 for name in ("MemAvailable", "SwapFree") if name in lines)


def check_disk(node: Node, opened: OpenedCheckpoint, *, fills_root: bool) -> None:
    """Room for the plan, for what we remember and, where the root file system is still to be filled, for its changes.

    Raises Unavailable("NodeDiskLow").
    """
    for folder in (node.config.paths.plans, node.config.paths.state):
        _require(folder, PLAN_BYTES_MIN, f"a restore's files in {folder}")
    diff = opened.checkpoint.rootfs_diff
    if fills_root and diff is not None and not opened.image.layered:
        with opened.files() as files:
            # The runtime keeps the layer beside what it unpacks; an overlay tells how full the place below it is.
            _require(
                opened.root, 2 * files.size(diff), "what the container had changed, where the runtime keeps snapshots"
            )


def check_root(node: Node, opened: OpenedCheckpoint, root: rootfs.Overlay) -> None:
    """Every file the processes use against the root file system that CRIU will find; once per image and lower layers.

    What the container's own layer holds by now is of the image too. The runtime linker and libc are looked at first.
    """
    if node.compared.get(opened.image.digest) == root.lower:
        return
    directories = [Path(each) for each in (root.upper, *root.lower) if each]
    check_root_links(opened.dump, directories)
    with opened.files() as files:
        _refuse(_in_root(node, opened, files, directories))
    node.compared[opened.image.digest] = root.lower


def _in_root(
    node: Node, opened: OpenedCheckpoint, files: CheckpointFiles, directories: Sequence[Path]
) -> Iterable[Finding]:
    images = ImageDirectory(files, "checkpoint")
    expected, _ = expected_files(images, opened.dump)
    expected.sort(key=lambda file: not file.path.rpartition("/")[2].startswith(("ld-", "ld.", "libc.", "libc-")))
    found = look_up(directories, [file.path for file in expected])
    yield from compare_files(expected, found)
    needs = dump_needs(images, opened.dump)
    levels = [there.elf.isa_level for there in found.values() if there and there.elf]
    if any(levels):
        asked = replace(needs, flags=needs.flags | level_needs(levels))
        yield check_cpu(asked, read_dump_host(files), node.facts())


def _refuse(findings: Iterable[Finding]) -> None:
    for each in findings:
        if each.level is Level.fails:
            raise Refused(REASONS.get(each.code, each.code), each.sentence)


def _require(folder: Path, needed_bytes: int, what: str) -> None:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    status = os.statvfs(there)
    free = status.f_bavail * status.f_frsize
    if free < needed_bytes:
        raise Unavailable(
            "NodeDiskLow",
            f"this node has no room for {what}: {needed_bytes / (1 << 20):.1f} MiB are needed, "
            f"{free / (1 << 20):.1f} MiB are left",
        )
