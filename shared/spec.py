"""The OCI runtime spec: what a container was, or is to be, started with.

Used for an archive's spec.dump (untrusted) and for the live container's spec alike, so that both sides of every
comparison are read the same way. Source: opencontainers/runtime-spec 1.2, config.md and config-linux.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.json_object import JsonObject

_UINT32_MAX = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Mount:
    destination: str
    type: str
    source: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Namespace:
    type: str
    """pid, network, ipc, uts, mount, user, cgroup or time."""
    path: str
    """Empty: a new one."""


@dataclass(frozen=True, slots=True)
class Rlimit:
    type: str
    """RLIMIT_…"""
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class Device:
    path: str
    type: str
    major: int
    minor: int
    mode: int | None
    uid: int | None
    gid: int | None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Five sets of names, ``CAP_…``; a set that the spec leaves out is empty (runc drops everything then)."""

    bounding: frozenset[str]
    effective: frozenset[str]
    permitted: frozenset[str]
    inheritable: frozenset[str]
    ambient: frozenset[str]


@dataclass(frozen=True, slots=True)
class SeccompRule:
    names: tuple[str, ...]
    action: str
    """SCMP_ACT_…"""
    conditional: bool
    """Whether it looks at arguments."""


@dataclass(frozen=True, slots=True)
class SeccompProfile:
    default_action: str
    architectures: tuple[str, ...]
    """SCMP_ARCH_…"""
    rules: tuple[SeccompRule, ...]


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    terminal: bool
    uid: int
    gid: int
    additional_gids: tuple[int, ...]
    umask: int | None
    capabilities: Capabilities
    no_new_privileges: bool
    rlimits: tuple[Rlimit, ...]
    oom_score_adj: int | None
    selinux_label: str
    apparmor_profile: str
    seccomp: bool
    """Whether there is a seccomp profile."""
    mounts: tuple[Mount, ...]
    namespaces: tuple[Namespace, ...]
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    root_path: str
    root_readonly: bool
    hostname: str
    domainname: str
    devices: tuple[Device, ...]
    cgroups_path: str
    annotations: Mapping[str, str]
    sysctl: Mapping[str, str]
    mount_label: str
    seccomp_profile: SeccompProfile | None = None
    rootfs_propagation: str = ""
    """``rshared`` where a mount of the container is to appear on the node (Bidirectional)."""


def parse_spec(document: bytes, *, file: str) -> RuntimeSpec:
    """Reads a runtime spec; ``file`` names it in errors.

    Raises CheckpointInvalid("MetadataMalformed") naming the field.
    """
    spec = JsonObject.parse(document, file)
    process = spec.object("process")
    user = process.object("user")
    root = spec.object("root")
    linux = spec.object("linux")
    return RuntimeSpec(
        args=process.texts("args"),
        env=process.texts("env"),
        cwd=process.text("cwd"),
        terminal=process.flag("terminal"),
        uid=user.integer("uid", highest=_UINT32_MAX) or 0,
        gid=user.integer("gid", highest=_UINT32_MAX) or 0,
        additional_gids=user.integers("additionalGids", highest=_UINT32_MAX),
        umask=user.integer("umask", highest=0o7777),
        capabilities=_capabilities(process.object("capabilities")),
        no_new_privileges=process.flag("noNewPrivileges"),
        rlimits=tuple(
            Rlimit(limit.text("type"), limit.integer("soft") or 0, limit.integer("hard") or 0)
            for limit in process.objects("rlimits")
        ),
        oom_score_adj=process.integer("oomScoreAdj", lowest=-1000, highest=1000),
        selinux_label=process.text("selinuxLabel"),
        apparmor_profile=process.text("apparmorProfile"),
        seccomp=linux.has("seccomp"),
        mounts=tuple(
            Mount(mount.text("destination"), mount.text("type"), mount.text("source"), mount.texts("options"))
            for mount in spec.objects("mounts")
        ),
        namespaces=tuple(
            Namespace(namespace.text("type"), namespace.text("path")) for namespace in linux.objects("namespaces")
        ),
        masked_paths=linux.texts("maskedPaths"),
        readonly_paths=linux.texts("readonlyPaths"),
        root_path=root.text("path"),
        root_readonly=root.flag("readonly"),
        hostname=spec.text("hostname"),
        domainname=spec.text("domainname"),
        devices=tuple(_device(device) for device in linux.objects("devices")),
        cgroups_path=linux.text("cgroupsPath"),
        annotations=spec.text_map("annotations"),
        sysctl=linux.text_map("sysctl"),
        mount_label=linux.text("mountLabel"),
        seccomp_profile=_seccomp(linux.object("seccomp")) if linux.has("seccomp") else None,
        rootfs_propagation=linux.text("rootfsPropagation"),
    )


def _capabilities(sets: JsonObject) -> Capabilities:
    return Capabilities(
        bounding=frozenset(sets.texts("bounding")),
        effective=frozenset(sets.texts("effective")),
        permitted=frozenset(sets.texts("permitted")),
        inheritable=frozenset(sets.texts("inheritable")),
        ambient=frozenset(sets.texts("ambient")),
    )


def _seccomp(profile: JsonObject) -> SeccompProfile:
    return SeccompProfile(
        default_action=profile.text("defaultAction"),
        architectures=profile.texts("architectures"),
        rules=tuple(
            SeccompRule(rule.texts("names"), rule.text("action"), bool(rule.objects("args")))
            for rule in profile.objects("syscalls")
        ),
    )


def _device(device: JsonObject) -> Device:
    return Device(
        path=device.text("path"),
        type=device.text("type"),
        major=device.integer("major", lowest=-1) or 0,
        minor=device.integer("minor", lowest=-1) or 0,
        mode=device.integer("fileMode", highest=_UINT32_MAX),
        uid=device.integer("uid", highest=_UINT32_MAX),
        gid=device.integer("gid", highest=_UINT32_MAX),
    )
