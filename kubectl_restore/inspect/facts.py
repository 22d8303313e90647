"""What `inspect` says about a checkpoint: the schema of its JSON, field by field.

In JSON and YAML the names are camelCase, tuples are lists, moments RFC 3339, and what a checkpoint does not record is
null. Fields are added, never renamed or removed, under one API_VERSION. Texts come from the checkpoint as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

API_VERSION: Final = "nri-restore/v1"
KIND: Final = "CheckpointInspection"

LossCode = Literal[
    "SharedMemory", "EmptyDir", "Volume", "HostPath", "TcpConnection", "ExecSessions", "Terminal", "FileLocks", "PodIp"
]


@dataclass(frozen=True, slots=True)
class Archive:
    """Where the checkpoint lies."""

    name: str
    compression: str
    """none, gzip or zstd."""
    files: int
    size_bytes: int
    """Of all files in it."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Who took it."""

    name: str
    """containerd, CRI-O or Podman."""
    runtime: str | None
    criu_version: str | None
    kernel: str | None
    """Release of the node's kernel."""
    architecture: str
    """As CRIU names it: x86_64, aarch64, …"""
    cpu: str | None
    cgroup_version: int | None
    lsm: str
    """none, selinux or apparmor."""
    network_lock: str
    plugins: tuple[str, ...]
    """Of CRIU, which the restore needs too."""
    frozen_seconds: float | None
    """How long the container stood still."""


@dataclass(frozen=True, slots=True)
class BaseImage:
    name: str | None
    reference: str | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class Container:
    id: str
    name: str
    pod: str
    namespace: str
    pod_uid: str
    image: BaseImage
    created_at: datetime | None
    checkpointed_at: datetime | None
    hostname: str | None
    command: tuple[str, ...]
    """What the container was started with."""
    terminal: bool
    root_readonly: bool


@dataclass(frozen=True, slots=True)
class MemoryKind:
    kind: str
    """anonymous, heap, stack, file, shared file, shared, memfd, kernel, other."""
    mapped_bytes: int
    dumped_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryArea:
    start: int
    end: int
    kind: str
    access: str
    """As in /proc/PID/maps: ``rwxp``."""
    path: str | None
    dumped_bytes: int


@dataclass(frozen=True, slots=True)
class Memory:
    mapped_bytes: int
    dumped_bytes: int
    kinds: tuple[MemoryKind, ...]


@dataclass(frozen=True, slots=True)
class Credentials:
    uid: int
    gid: int
    groups: tuple[int, ...]
    effective: tuple[str, ...]
    """Capabilities, CAP_…, sorted."""
    bounding: tuple[str, ...]
    no_new_privileges: bool
    seccomp: str
    """disabled, strict or filter."""
    lsm_profile: str


@dataclass(frozen=True, slots=True)
class OpenFile:
    descriptor: int
    kind: str
    """file, directory, device, pipe, fifo, tcp, udp, raw, unix, eventfd, tty, memfd, …"""
    name: str


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    """In the container."""
    parent: int
    """0 for the first."""
    session: int
    name: str
    command: tuple[str, ...]
    """From its memory; empty where that could not be read (command_known says so)."""
    command_known: bool
    executable: str | None
    working_directory: str | None
    state: str
    """alive, stopped, dead, zombie."""
    threads: int
    credentials: Credentials | None
    """None for a dead one, as memory."""
    memory: Memory | None
    areas: tuple[MemoryArea, ...]
    files: tuple[OpenFile, ...]


@dataclass(frozen=True, slots=True)
class SharedSegment:
    """Shared anonymous memory, dumped once for all who have it mapped."""

    number: int
    dumped_bytes: int
    processes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Socket:
    protocol: str
    """tcp, udp, raw or unix, with 6 for IPv6."""
    state: str
    """listening, established, …"""
    local: str
    remote: str | None
    processes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mount:
    path: str
    type: str
    """File system, or bind for what the node hands in."""
    source: str
    readonly: bool
    external: bool
    """Whether the pod must provide it again."""
    volume: str | None
    """What of the pod it was, as ``emptyDir cache``, where the kubelet's path says so."""


@dataclass(frozen=True, slots=True)
class Namespace:
    kind: str
    shared_with: str
    """container (its own), pod or node."""


@dataclass(frozen=True, slots=True)
class FileLock:
    kind: str
    """flock, posix, open file description or lease."""
    process: int
    path: str | None


@dataclass(frozen=True, slots=True)
class RootChanges:
    """What the container had changed in its root file system."""

    diff_bytes: int | None
    """Size of the archive of changed files; None without one."""
    deleted_paths: int


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that a restored container will not have."""

    code: LossCode
    certain: bool
    """Whether the dump shows that there was something to lose."""
    sentence: str


@dataclass(frozen=True, slots=True)
class Inspection:
    archive: Archive
    engine: Engine
    container: Container
    processes: tuple[Process, ...]
    """Parents before their children."""
    memory: Memory
    shared_segments: tuple[SharedSegment, ...]
    sockets: tuple[Socket, ...]
    mounts: tuple[Mount, ...]
    namespaces: tuple[Namespace, ...]
    file_locks: tuple[FileLock, ...]
    root_changes: RootChanges
    losses: tuple[Loss, ...]
