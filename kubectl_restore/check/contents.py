"""What in a dump stops a restore anywhere, or asks something of the pod or node."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_restore.check.findings import finding
from kubectl_restore.inspect.losses import is_pod_address
from kubectl_restore.inspect.naming import endpoint, internet_state, protocol
from shared import contract
from shared.criu.dump import Dump
from shared.criu.open_files import InternetSocket
from shared.preflight.findings import Finding, listed
from shared.preflight.platform import confinements
from shared.spec import RuntimeSpec

PROVIDED = frozenset(
    {
        "/dev/shm",
        "/dev/termination-log",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/run/secrets/kubernetes.io/serviceaccount",
        "/var/run/secrets/kubernetes.io/serviceaccount",
    }
)
"""Mounts every pod has without asking."""


def check_contents(dump: Dump, spec: RuntimeSpec) -> Iterator[Finding]:
    if dump.inventory.plugins:
        names = listed(dump.inventory.plugins)
        yield finding("CriuPluginNeeded", "checkpoint", f"the restore needs CRIU's plugins {names} on the node")
    yield from _sockets(dump)
    if dump.file_locks:
        yield finding(
            "FileLocks",
            "checkpoint",
            f"the processes hold {dump.file_locks} file locks; the pod needs the annotation {contract.POD_CRIU}: "
            "file-locks",
        )
    if spec.terminal:
        yield finding("TerminalNeeded", "pod", "the container had a terminal; the pod must set tty: true")
    needed = sorted(
        mount.destination for mount in spec.mounts if mount.type == "bind" and mount.destination not in PROVIDED
    )
    if needed:
        sentence = f"the pod must mount something at {listed(needed)}, with the same access as then"
        yield finding("MountsNeeded", "pod", sentence)
    profiles = confinements(dump)
    if profiles:
        sentence = f"the processes run under the {dump.inventory.lsm} profile {listed(profiles)}; the node must have it"
        yield finding("LsmProfile", "machine", sentence)


def _sockets(dump: Dump) -> Iterator[Finding]:
    bound: list[str] = []
    connections = 0
    for file in dump.files:
        if not isinstance(file, InternetSocket):
            continue
        connections += file.connected
        local = endpoint(file.source, file.source_port)
        if internet_state(file) in ("listening", "bound") and file.source_port and is_pod_address(local):
            bound.append(f"{protocol(file)} {local}")
    if bound:
        yield finding(
            "BoundToPodIp",
            "network",
            f"sockets are bound to the old pod's own address ({listed(bound)}), which a new pod does not get; let the "
            "program listen on all addresses",
        )
    if connections:
        yield finding(
            "TcpConnections",
            "network",
            f"{connections} TCP connection{'s are' if connections > 1 else ' is'} closed by the restore, unless the "
            f"pod's annotation {contract.POD_TCP} is established and the other end is still there",
        )
