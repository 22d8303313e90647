"""Processor, kernel, cgroups, security module and CRIU of a dump against those of a machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from shared.criu.dump import Dump
from shared.criu.dump_host import DumpHost
from shared.criu.since import newer_than
from shared.node_facts import NodeFacts
from shared.preflight.cpu import CpuNeeds
from shared.preflight.findings import Finding, finding, listed

_FEATURES: Final = {
    "time": ((5, 6), "time namespaces"),
    "pidfd": ((5, 3), "descriptors of processes"),
    "memfd": ((3, 17), "memfd"),
}
"""What a dump may hold, and the first kernel that has it (time_namespaces(7), pidfd_open(2), memfd_create(2))."""

_READ_SINCE: Final[tuple[tuple[Callable[[Dump], bool], tuple[int, int], str], ...]] = (
    # Earlier ones read 0 pages for every run (images/pagemap.proto, 4.2; checkpoint-restore/criu#2847).
    (lambda dump: dump.wide_page_counts, (4, 2), "page counts of 64 bits"),
    # Earlier ones end with "Unknown file type" (images/fdinfo.proto, 4.1; criu/files.c).
    (lambda dump: any(file.kind == "pidfd" for file in dump.files), (4, 1), "descriptors of processes"),
)
"""What not every CRIU that restores containers knows, and the first release that does."""


def check_platform(dump: Dump, host: DumpHost, criu_version: str | None, machine: NodeFacts) -> Iterator[Finding]:
    """``criu_version``: of the CRIU that dumped; ``machine`` is one with Linux."""
    yield _architecture(dump, machine)
    yield from _kernel(dump, host, machine)
    yield from _cgroups(dump, machine)
    yield _criu(dump, criu_version, machine)
    yield from _lsm(dump, machine)


def check_cpu(needs: CpuNeeds, host: DumpHost, machine: NodeFacts) -> Finding:
    """``needs``: of the dump and, where they could be read, of its programs."""
    judged = machine.cpu_judged
    asked = needs.flags if judged is None else needs.flags & judged
    if machine.cpu_flags is not None and (missing := sorted(asked - machine.cpu_flags)):
        sentence = f"the processes need {listed(missing)} of the processor, which {machine.name} does not have"
        return finding("CpuFeaturesMissing", "processor", sentence)
    if needs.xsave_bytes and machine.xsave_bytes and needs.xsave_bytes != machine.xsave_bytes:
        sentence = f"the processor's state took {needs.xsave_bytes} bytes, on {machine.name} it takes "
        sentence += f"{machine.xsave_bytes}, and programs keep what they found; restore on a node of the same processor"
        return finding("CpuStateDiffers", "processor", sentence)
    if host.cpu and host.cpu == machine.cpu:
        return finding("CpuSuffices", "processor", f"{machine.name} has the same processor, {host.cpu}")
    if machine.cpu_flags is None and needs.flags:
        return finding(
            "CpuUnknown",
            "processor",
            f"the processes need {listed(sorted(needs.flags))} of the processor; whether {machine.name} has that is "
            "not known: its node has no labels of node-feature-discovery",
        )
    if not needs.recorded:
        return finding(
            "CpuNeedsUnknown",
            "processor",
            "the dump does not record which features of the processor its programs chose at their start; nothing that "
            f"can be seen in it speaks against {machine.name}",
        )
    return finding("CpuSuffices", "processor", f"{machine.name} has all that the processes need of the processor")


def _architecture(dump: Dump, machine: NodeFacts) -> Finding:
    dumped = dump.root.machine
    if machine.architecture is None:
        return finding("ArchitectureUnknown", "machine", f"{machine.name} does not say what processor it has")
    if dumped != machine.architecture:
        sentence = f"the checkpoint is of {dumped} processes, {machine.name} is {machine.architecture}"
        return finding("ArchitectureDiffers", "machine", sentence)
    return finding("ArchitectureSame", "machine", f"both are {dumped}")


def _kernel(dump: Dump, host: DumpHost, machine: NodeFacts) -> Iterator[Finding]:
    here = version_numbers(machine.kernel)
    if here is None:
        yield finding("KernelUnknown", "machine", f"{machine.name} does not say which kernel it has")
        return
    held = {file.kind for file in dump.files}
    if dump.root.ids.time_ns != dump.inventory.ids.time_ns:
        held.add("time")
    missing = [
        f"{what} (Linux {first[0]}.{first[1]})"
        for name, (first, what) in _FEATURES.items()
        if name in held and here < first
    ]
    if missing:
        sentence = f"the dump holds {listed(missing)}, {machine.name} has Linux {machine.kernel}"
        yield finding("KernelFeatureMissing", "machine", sentence)
        return
    there = version_numbers(host.kernel)
    if there is None:
        yield finding("KernelUnknown", "machine", "the checkpoint does not record the kernel it was taken under")
    elif here < there:
        yield finding(
            "KernelOlder",
            "machine",
            f"the checkpoint was taken under Linux {host.kernel}, {machine.name} has {machine.kernel}; programs may "
            "use what they found in the newer one",
        )
    else:
        yield finding(
            "KernelNewEnough", "machine", f"taken under Linux {host.kernel}, {machine.name} has {machine.kernel}"
        )


def _cgroups(dump: Dump, machine: NodeFacts) -> Iterator[Finding]:
    dumped = dump.cgroup_version
    if dumped is None:
        return
    if machine.cgroup_version is None:
        sentence = f"the container had cgroup v{dumped} mounted; whether {machine.name} has that is not known"
        yield finding("CgroupVersionUnknown", "machine", sentence)
    elif dumped != machine.cgroup_version:
        yield finding(
            "CgroupVersionDiffers",
            "machine",
            f"the container had cgroup v{dumped} mounted, {machine.name} has v{machine.cgroup_version}; restore on a "
            f"node with v{dumped}",
        )


def _criu(dump: Dump, needed: str | None, machine: NodeFacts) -> Finding:
    """A later CRIU reads what an earlier one wrote, never the other way round; no pair of releases is an exception.

    Source: criu's images/*.proto of every release from 3.10 to 4.2: none has a required field, in a message that was
    there before, that the one before did not write.
    """
    if machine.criu_missing:
        return finding("CriuMissing", "machine", f"{machine.name} has no criu; install it there")
    if machine.criu_version is None:
        return finding("CriuUnknown", "machine", f"which CRIU {machine.name} has is not known")
    here = version_numbers(machine.criu_version) or (0, 0)
    if needed is not None and here < (version_numbers(needed) or (0, 0)):
        return finding(
            "CriuTooOld",
            "machine",
            f"the checkpoint was made by CRIU {needed}, {machine.name} has {machine.criu_version}; install CRIU "
            f"{needed} or later there",
        )
    for (major, minor), what in misread(dump):
        if here < (major, minor):
            sentence = f"the dump has {what}, which CRIU before {major}.{minor} misreads or does not know"
            least = f"install CRIU {major}.{minor} or later there"
            return finding("CriuTooOld", "machine", f"{sentence}; {machine.name} has {machine.criu_version}, {least}")
    lost = newer_than(dump.source, dump.tasks, here[:2], wide=dump.wide_page_counts)
    if (first := next(lost, None)) is not None:
        sentence = f"the dump has {first}, which CRIU {machine.criu_version} of {machine.name} would leave out silently"
        return finding("CriuTooOld", "machine", f"{sentence}; install that CRIU or a later one there")
    if needed is None:
        sentence = f"{machine.name} has CRIU {machine.criu_version}; the checkpoint does not record which one took it"
        return finding("CriuNotRecorded", "machine", f"{sentence}: it must not be a later one")
    return finding("CriuNewEnough", "machine", f"made by CRIU {needed}, {machine.name} has {machine.criu_version}")


def misread(dump: Dump) -> Iterator[tuple[tuple[int, int], str]]:
    """What a dump says of itself, whatever its log says or leaves out: the first release that reads it, and why."""
    for holds, first, what in _READ_SINCE:
        if holds(dump):
            yield first, what


def _lsm(dump: Dump, machine: NodeFacts) -> Iterator[Finding]:
    """As criu/lsm.c, validate_lsm: another module matters once a process has a label of the first."""
    dumped = dump.inventory.lsm
    if dumped == "none" or machine.lsm in (None, dumped):
        return
    if labels := confinements(dump):
        has = "no security module" if machine.lsm == "none" else machine.lsm
        sentence = f"the processes run under {dumped} ({listed(labels)}), {machine.name} has {has}"
        yield finding("LsmDiffers", "machine", f"{sentence}; restore on a node with {dumped}")


def confinements(dump: Dump) -> list[str]:
    """The AppArmor profiles or SELinux labels of the processes."""
    profiles = {thread.credentials.lsm_profile for task in dump.tasks for thread in task.threads}
    return sorted(profiles - {"", "unconfined"})


def version_numbers(version: str | None) -> tuple[int, int] | None:
    """Major and minor."""
    found = re.match(r"v?(\d{1,6})\.(\d{1,6})", version or "")
    return (int(found[1]), int(found[2])) if found else None
