"""What containerd and runc make of a pod's security settings: the runtime spec, and CRIU's dump of the container.

Source: containerd internal/cri/server/container_create_linux.go (1.7.24, 2.1.9; a real spec of each was compared),
runc libcontainer/init_linux.go and rootfs_linux.go, capabilities(7) for what an execve leaves.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from shared.archive import CheckpointFiles
from shared.criu.capabilities import NAMES
from shared.criu.criu_pb2 import PidnsEntry, SeccompEntry, SeccompFilter
from shared.criu.dump import Dump, read_dump
from shared.spec import RuntimeSpec, parse_spec
from tests.support.checkpoints import DEFAULT_CAPABILITIES, SyntheticDump

MASKED: Final = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
ALL: Final = (1 << len(NAMES)) - 1

_FSTYPE: Final = {"proc": 1, "sysfs": 2, "tmpfs": 5, "devpts": 6, "cgroup": 12, "mqueue": 14, "overlay": 17}
_READ_ONLY_FLAG: Final = 1
_QUIET: Final = 14
"""nosuid, nodev, noexec (linux/mount.h)."""


@dataclass(frozen=True)
class Security:
    """What of a container's and pod's securityContext reaches the runtime spec."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    """fsGroup and supplementalGroups."""
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    """``("ALL",)`` drops the default ones too."""
    no_new_privileges: bool = False
    seccomp: bool = False
    read_only_root: bool = False
    share_processes: bool = False
    host_network: bool = False
    privileged: bool = False
    tty: bool = False
    data_read_only: bool = False
    """Of the volume at /data."""

    @property
    def capabilities(self) -> int:
        if self.privileged:
            return ALL
        kept = 0 if "ALL" in self.drop else DEFAULT_CAPABILITIES
        for name in self.add:
            kept |= 1 << NAMES.index(name)
        for name in self.drop:
            if name != "ALL":
                kept &= ~(1 << NAMES.index(name))
        return kept


def spec_document(security: Security) -> dict[str, Any]:
    """config.json of a container with these settings."""
    names = [name for bit, name in enumerate(NAMES) if security.capabilities >> bit & 1]
    sets = dict.fromkeys(("bounding", "effective", "permitted"), names) if names else {}
    process = {
        "terminal": security.tty,
        "user": {"uid": security.uid, "gid": security.gid, "additionalGids": [security.gid, *security.groups]},
        "args": ["/bin/app", "--serve"],
        "cwd": "/",
        "capabilities": sets,
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": 1000,
    }
    access = "rw" if security.privileged else "ro"
    root_access = "ro" if security.read_only_root else "rw"
    quiet = ["nosuid", "noexec", "nodev"]
    mounts = [
        ("/proc", "proc", "proc", quiet),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance"]),
        ("/dev/mqueue", "mqueue", "mqueue", quiet),
        ("/sys", "sysfs", "sysfs", [*quiet, access]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", [*quiet, "relatime", access]),
        *(
            (path, "bind", f"/node{path}", ["rbind", "rprivate", how])
            for path, how in {
                "/etc/hosts": "rw",
                "/dev/termination-log": "rw",
                "/etc/hostname": root_access,
                "/etc/resolv.conf": root_access,
                "/dev/shm": "rw",
                "/data": "ro" if security.data_read_only else "rw",
                TOKEN: "ro",
            }.items()
        ),
    ]
    sandbox = "/proc/2147483600/ns"  # of a process that cannot be
    namespaces: list[dict[str, str]] = [
        {"type": "pid", **({"path": f"{sandbox}/pid"} if security.share_processes else {})},
        {"type": "ipc", "path": f"{sandbox}/ipc"},
        {"type": "uts", "path": f"{sandbox}/uts"},
        {"type": "mount"},
        {"type": "network", "path": "/proc/self/ns/net" if security.host_network else f"{sandbox}/net"},
    ]
    return {
        "ociVersion": "1.2.0",
        "process": process,
        "root": {"path": "rootfs", "readonly": security.read_only_root},
        "mounts": [
            {"destination": path, "type": kind, "source": source, "options": options}
            for path, kind, source, options in mounts
        ],
        "linux": {
            "cgroupsPath": "/kubepods/pod1/c1",
            "namespaces": namespaces,
            "maskedPaths": [] if security.privileged else MASKED,
            "readonlyPaths": [] if security.privileged else READ_ONLY,
            **({"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}} if security.seccomp else {}),
        },
    }


def spec(security: Security) -> RuntimeSpec:
    return parse_spec(json.dumps(spec_document(security)).encode(), file="config.json")


def synthetic_dump(security: Security, processes: int = 2) -> SyntheticDump:
    """CRIU's images of such a container with so many processes, each as the runtime and the kernel leave it."""
    made = SyntheticDump.of_processes(processes)
    held = security.capabilities if security.uid == 0 else 0
    for pid in range(1, processes + 1):
        core = made.core(pid)
        core.tc.oom_score_adj = 1000
        creds = core.thread_core.creds
        for each in ("uid", "euid", "suid", "fsuid"):
            setattr(creds, each, security.uid)
        for each in ("gid", "egid", "sgid", "fsgid"):
            setattr(creds, each, security.gid)
        creds.groups[:] = [security.gid, *security.groups]
        creds.cap_prm[:] = creds.cap_eff[:] = words(held)
        creds.cap_bnd[:] = words(security.capabilities)
        creds.no_new_privs = int(security.no_new_privileges)
        if security.seccomp:
            core.thread_core.seccomp_mode, core.thread_core.seccomp_filter = 2, 0
        if security.host_network:
            made.ids(pid).net_ns_id = made.inventory().root_ids.net_ns_id
    if security.share_processes:
        made.images["pidns-9.img"] = [PidnsEntry(ext_key=b"extRootPidNS")]
    if security.seccomp:
        nothing = bytes.fromhex("0600000001000500")  # return SECCOMP_RET_ERRNO, EPERM
        made.images["seccomp.img"] = [SeccompEntry(seccomp_filters=[SeccompFilter(filter=nothing)])]
    _add_mounts(made, security)
    return made


def _add_mounts(made: SyntheticDump, security: Security) -> None:
    made.mount("/").flags |= _READ_ONLY_FLAG if security.read_only_root else 0
    sys = made.mount("/sys")
    sys.sb_flags = 0 if security.privileged else _READ_ONLY_FLAG
    sys.flags = sys.flags & ~_READ_ONLY_FLAG if security.privileged else sys.flags | _READ_ONLY_FLAG
    own = {"root": b"/", "ext_key": None, "flags": _QUIET}
    made.add_mount("/dev/mqueue", fstype=_FSTYPE["mqueue"], source=b"mqueue", **own)
    made.add_mount("/sys/fs/cgroup", fstype=_FSTYPE["tmpfs"], source=b"tmpfs", **own)
    _fill(made, "/sys/fs/cgroup")
    for controller in ("memory", "cpu"):
        flags = _QUIET if security.privileged else _QUIET | _READ_ONLY_FLAG
        made.add_mount(f"/sys/fs/cgroup/{controller}", fstype=_FSTYPE["cgroup"], source=b"cgroup", flags=flags)
    if security.tty:
        terminals = {"fstype": _FSTYPE["devpts"], "source": b"devpts", "root_dev": made.mount("/dev/pts").root_dev}
        made.add_mount("/dev/console", root=b"/0", ext_key=None, **terminals)
    for mount in spec_document(security)["mounts"]:
        if mount["type"] == "bind":
            made.add_mount(mount["destination"], flags=int("ro" in mount["options"]))
    if security.privileged:
        return
    for path in ("/proc/acpi", "/sys/firmware"):
        made.add_mount(path, fstype=_FSTYPE["tmpfs"], source=b"tmpfs", sb_flags=_READ_ONLY_FLAG, **own)
        _fill(made, path)
    for path in ("/proc/keys", "/proc/timer_list", "/proc/kcore"):
        made.add_mount(path, fstype=_FSTYPE["tmpfs"], source=b"tmpfs", root=b"/null", ext_key=b"/dev/null")
    for path in READ_ONLY:
        part = path.removeprefix("/proc").encode()
        proc = {"fstype": _FSTYPE["proc"], "source": b"proc", "root_dev": made.mount("/proc").root_dev}
        made.add_mount(path, root=part, flags=_READ_ONLY_FLAG, ext_key=None, **proc)


def _fill(made: SyntheticDump, path: str) -> None:
    """With nothing, as the tmpfs at ``path`` was."""
    made.raw[f"tmpfs-dev-{made.mount(path).root_dev}.tar.gz.img"] = made.raw["tmpfs-dev-65.tar.gz.img"]


def words(mask: int) -> list[int]:
    """A capability set as CRIU stores it: 32-bit words, the low one first."""
    return [mask & 0xFFFFFFFF, mask >> 32]


def dump(security: Security) -> Dump:
    return read(synthetic_dump(security))


def read(made: SyntheticDump) -> Dump:
    return read_dump(InMemory(made.files()))


class InMemory(CheckpointFiles):
    """Files of a checkpoint that lie nowhere."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def names(self) -> tuple[str, ...]:
        return tuple(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def size(self, name: str) -> int:
        return len(self._files[name])

    def open(self, name: str) -> BinaryIO:
        return io.BytesIO(self._files[name])

    def close(self) -> None:
        pass
