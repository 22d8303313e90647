"""The OCI spec that CRI-O makes of a container: mounts, annotations and rights as its source has them.

Sources: CRI-O server/container_create_linux.go, internal/factory/container/container.go (SpecAddAnnotations),
internal/config/capabilities.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shared.contract import HANDLER

CAPABILITIES: Final = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE", "CAP_KILL",
)  # fmt: skip
MASKED: Final = (
    "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
    "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
)  # fmt: skip
READ_ONLY: Final = ("/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
INERT: Final = ("nosuid", "noexec", "nodev")


@dataclass(frozen=True)
class Sandbox:
    """A pod; its namespaces are pinned under /run, as pinns does."""

    id: str
    name: str
    uid: str
    folder: str
    """Its files on the node: hostname, resolv.conf, shm …"""
    annotations: Mapping[str, str] = field(default_factory=dict)
    handler: str = HANDLER
    own_cgroups: bool = False
    """Whether its containers have cgroup namespaces, as everywhere with version 2."""

    def namespace(self, kind: str) -> str:
        return f"/run/{kind}ns/{self.id}"

    @property
    def cgroup(self) -> str:
        return f"/kubepods/pod{self.uid}"


@dataclass(frozen=True)
class Request:
    """What the kubelet asks for, and what CRI-O found: the image's id, the mounted root."""

    sandbox: Sandbox
    name: str
    container_id: str
    image_id: str
    image_name: str
    rootfs: str
    log_path: str
    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    attempt: int = 0


def _mounts(sandbox: Sandbox) -> list[dict[str, Any]]:
    def made(path: str, kind: str, source: str, *options: str) -> dict[str, Any]:
        return {"destination": path, "type": kind, "source": source, "options": list(options)}

    def bound(path: str, name: str, *options: str) -> dict[str, Any]:
        return made(path, "bind", f"{sandbox.folder}/{name}", "rbind", "rprivate", *options)

    return [
        made("/proc", "proc", "proc", *INERT),
        made("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        made("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        made("/dev/mqueue", "mqueue", "mqueue", *INERT),
        made("/sys", "sysfs", "sysfs", *INERT, "ro"),
        made("/sys/fs/cgroup", "cgroup", "cgroup", *INERT, "relatime", "ro"),
        made("/dev/shm", "bind", f"{sandbox.folder}/shm", "rw", "bind"),
        made("/etc/resolv.conf", "bind", f"{sandbox.folder}/resolv.conf", "rw", "bind", *INERT),
        made("/etc/hostname", "bind", f"{sandbox.folder}/hostname", "rw", "bind"),
        made("/run/.containerenv", "bind", f"{sandbox.folder}/containerenv", "rw", "bind"),
        bound("/etc/hosts", "hosts", "rw"),
        bound("/dev/termination-log", "termination-log", "rw"),
    ]


def annotations(request: Request) -> dict[str, str]:
    """The pod's first, so that CRI-O's own win."""
    labels = {
        "io.kubernetes.container.name": request.name,
        "io.kubernetes.pod.name": request.sandbox.name,
        "io.kubernetes.pod.namespace": "default",
        "io.kubernetes.pod.uid": request.sandbox.uid,
    }
    kubelet = {
        "io.kubernetes.container.hash": "5ad0c9e5",
        "io.kubernetes.container.restartCount": str(request.attempt),
        "io.kubernetes.pod.terminationGracePeriod": "30",
    }
    crio = "io.kubernetes.cri-o"
    return {
        **request.sandbox.annotations,
        f"{crio}.Image": request.image_id,
        f"{crio}.ImageName": request.image_name,
        f"{crio}.ImageRef": request.image_id,
        f"{crio}.Name": f"k8s_{request.name}_{request.sandbox.name}_default_{request.sandbox.uid}_{request.attempt}",
        f"{crio}.ContainerID": request.container_id,
        f"{crio}.SandboxID": request.sandbox.id,
        f"{crio}.SandboxName": f"k8s_{request.sandbox.name}_default_{request.sandbox.uid}_0",
        f"{crio}.ContainerType": "container",
        f"{crio}.LogPath": request.log_path,
        f"{crio}.TTY": "false",
        f"{crio}.Stdin": "false",
        f"{crio}.StdinOnce": "false",
        f"{crio}.ResolvPath": f"{request.sandbox.folder}/resolv.conf",
        "io.container.manager": "cri-o",
        f"{crio}.MountPoint": request.rootfs,
        f"{crio}.Metadata": json.dumps({"name": request.name, "attempt": request.attempt}),
        f"{crio}.Labels": json.dumps(labels),
        f"{crio}.Volumes": "[]",
        f"{crio}.Annotations": json.dumps(kubelet),
        **kubelet,
        **labels,
    }


def container_spec(request: Request) -> dict[str, Any]:
    sandbox = request.sandbox
    rights: Sequence[str] = list(CAPABILITIES)
    devices = [{"allow": False, "access": "rwm"}]
    for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, None)):
        devices.append(
            {"allow": True, "type": "c", "major": major, "access": "rwm"}
            | ({"minor": minor} if minor is not None else {})
        )
    return {
        "ociVersion": "1.0.2-dev",
        "process": {
            "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
            "args": list(request.command),
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                f"HOSTNAME={sandbox.name}",
                *request.env,
            ],
            "cwd": "/",
            "capabilities": {"bounding": rights, "effective": rights, "permitted": rights},
            "oomScoreAdj": 1000,
        },
        "root": {"path": request.rootfs},
        "hostname": sandbox.name,
        "mounts": _mounts(sandbox),
        "annotations": annotations(request),
        "linux": {
            "resources": {"devices": devices, "memory": {}, "cpu": {"shares": 2}, "pids": {"limit": 0}},
            "cgroupsPath": f"{sandbox.cgroup}/crio-{request.container_id}",
            "namespaces": [
                {"type": "pid"},
                *(
                    {"type": kind, "path": sandbox.namespace(short)}
                    for kind, short in (("network", "net"), ("ipc", "ipc"), ("uts", "uts"))
                ),
                {"type": "mount"},
                *([{"type": "cgroup"}] if sandbox.own_cgroups else []),
            ],
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READ_ONLY),
        },
    }
