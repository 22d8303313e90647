"""Things of a node that nothing in a restored container may touch, laid out before and looked at after each restore.

Root's files on the read-only and the writable volume of each pod that restores, a directory of the node, a socket that
writes down who connected, another pod with files of its own, sysctls, cgroups, keyrings and the firewall.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.node.kubelet import Container, Kubelet, Pod
from tests.e2e.node.node import Node
from tests.e2e.node.program import Program
from tests.e2e.node.specs import ContainerSpec, PodSpec, VolumeMount

FOLDER: Final = "/canary"
OPENED: Final = "of a volume"
"""What /write/file holds, which generator/sink.py has open."""
_LISTENER: Final = """
import os, socket
one = socket.socket(socket.AF_UNIX)
one.bind("/canary/socket")
os.chmod("/canary/socket", 0o777)
one.listen()
while True:
    one.accept()
    with open("/canary/connections", "a") as file:
        file.write("one\\n")
"""
_VOLATILE: Final = (
    "fs.dentry-state", "fs.file-nr", "fs.inode-", "fs.aio-nr", "kernel.ns_last_pid", "kernel.pty.nr",
    "kernel.random.", "net.netfilter.nf_conntrack_count", "kernel.sched_domain", "fs.quota.", "vm.stat_refresh",
    "kernel.perf_event_max_sample_rate",
)  # fmt: skip
"""Settings that the kernel changes by itself."""
_SESSION: Final = re.compile(r"\b_ses\b|_ses\.|\b[0-9a-f]{64}\b")
_COUNTED: Final = re.compile(r"packets \d+ bytes \d+|\[\d+:\d+\]")
_CGROUP_FILES: Final = (
    "cgroup.procs", "cpu.shares", "cpu.max", "cpu.cfs_quota_us", "cpuset.cpus", "memory.limit_in_bytes", "memory.max",
    "pids.max", "devices.list", "release_agent", "notify_on_release",
)  # fmt: skip


@dataclass
class Canaries:
    """On one node; ``close`` takes them away but for the other pod, which the kubelet removes."""

    kubelet: Kubelet
    _other: Container | None = None
    _listener: Program | None = None

    @property
    def node(self) -> Node:
        return self.kubelet.node

    def lay_out(self, image: str) -> None:
        """``image``: what the other pod runs."""
        self.node.sh(
            f"mkdir -p {FOLDER}/folder {FOLDER}/private; echo kept > {FOLDER}/kept; echo kept > {FOLDER}/folder/kept; "
            f"chmod 0700 {FOLDER}/private; echo secret > {FOLDER}/private/secret; chmod 0600 {FOLDER}/private/secret; "
            f"cp /bin/true {FOLDER}/program; chmod 4755 {FOLDER}/program; ln -s kept {FOLDER}/link; "
            f"mknod {FOLDER}/device c 1 3; mkfifo {FOLDER}/fifo; : > {FOLDER}/connections"
        )
        self._listener = self.node.spawn(["/usr/bin/python3", "-c", _LISTENER], "/var/log/canary.log")
        other = self.kubelet.run_pod(PodSpec("canary"))
        command = ("sh", "-c", "echo own > /kept; echo own > /data/kept; exec sleep 1000000")
        self._other = other.run(ContainerSpec(image, "other", command, mounts=(VolumeMount("/data", "data"),)))

    def close(self) -> None:
        if self._listener is not None:
            self._listener.kill()
        self.node.sh(f"rm -rf {FOLDER}")

    def put_into(self, pod: Pod, *, owner: int) -> None:
        """Files of root's into the volumes of a pod that restores, and the one that its program had open there."""
        for name in ("read", "write"):
            volume = self._volume(pod, name)
            volume.mkdir(parents=True, exist_ok=True)
            volume.chmod(0o777)
            (volume / "kept").write_text(f"kept in {name}\n")
            (volume / "kept").chmod(0o600)
            (volume / "folder").mkdir(exist_ok=True)
            (volume / "folder/kept").write_text("kept below\n")
        (volume / "file").write_text(OPENED)
        os.chown(volume / "file", owner, owner)

    def look(self, pod: Pod) -> dict[str, str]:
        """What is there, by what it is called; ``pod`` is the one that restores."""
        found = dict(self._files(pod))
        listed = self.node.sh(
            "sysctl -a 2>/dev/null; echo ==; nft list ruleset; echo ==; iptables-save; ip6tables-save; echo ==; "
            "cat /proc/keys; echo ==; ip -o address; ip route; echo ==; hostname; cat /proc/sys/kernel/core_pattern"
        ).split("==\n")
        for line in listed[0].splitlines():
            name, _, value = line.partition(" = ")
            if not name.startswith(_VOLATILE):
                found[f"sysctl {name}"] = value
        for kind, text in zip(("nft", "iptables", "keys", "network", "name"), listed[1:], strict=True):
            for line in text.splitlines():
                if entry := _lasting(kind, line):
                    found[f"{kind} {entry}"] = "there"
        return found | dict(self._cgroups()) | dict(self._other_pod())

    def _volume(self, pod: Pod, name: str) -> Path:
        return self.node.path(f"{pod.spec.folder}/volumes/kubernetes.io~empty-dir/{name}")

    def _files(self, pod: Pod) -> Iterator[tuple[str, str]]:
        places = {FOLDER: self.node.path(FOLDER)}
        for name in ("read", "write"):
            places[f"volume {name}"] = self._volume(pod, name)
        for name, folder in places.items():
            for parent, folders, files in os.walk(folder):
                for entry in (*folders, *files):
                    path = Path(parent, entry)
                    if name.startswith("volume write") and "kept" not in path.name and path.name != "folder":
                        continue  # what the pod's own program has there
                    yield f"{name}/{path.relative_to(folder)}", _state(path)

    def _cgroups(self) -> Iterator[tuple[str, str]]:
        """Of the node and the other pod: which files and limits there are, and which processes."""
        assert self._other is not None
        groups = f"$(find /sys/fs/cgroup -maxdepth 1 -mindepth 1) $(find /sys/fs/cgroup -name {self._other.id})"
        show = 'test -f "$group/$name" && echo "$group/$name $(tr "\\n" " " < "$group/$name")"'
        script = (
            f"for group in {groups}; do for name in {' '.join(_CGROUP_FILES)}; do {show}; done; done 2>/dev/null; :"
        )
        listed = self.node.sh(script)
        for line in listed.splitlines():
            name, _, value = line.partition(" ")
            if self._other.id in name or not name.endswith("cgroup.procs"):
                yield f"cgroup {name}", value

    def _other_pod(self) -> Iterator[tuple[str, str]]:
        assert self._other is not None
        shown = (
            "cat /kept /data/kept; cat /proc/1/status | grep -E '^(Uid|Cap|Seccomp:|NoNewPrivs)'; cat /proc/1/mounts"
        )
        yield "other pod", self._other.sh(shown)


def _state(path: Path) -> str:
    status = path.lstat()
    content = ""
    if stat.S_ISREG(status.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = str(path.readlink())
    mtime = 0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns
    return f"{status.st_mode:o} {status.st_uid}:{status.st_gid} {status.st_ino} {mtime} {content}"


def _lasting(kind: str, line: str) -> str:
    """The line without what changes by itself; empty for one that comes and goes."""
    if kind == "keys":
        parts = line.split()
        # The runtimes make a session keyring for each container, named by its id; other columns count uses and time.
        return (
            ""
            if _SESSION.search(line) or len(parts) < 8
            else " ".join((*parts[4:8], *parts[8:9])).rstrip("0123456789/: ")
        )
    if kind in ("iptables", "nft"):
        return "" if line.startswith("#") else _COUNTED.sub("", line).strip()
    return line.split(" valid_lft ")[0].replace(" tentative", "").strip()


def different(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Sentences about what changed."""
    names = sorted(before.keys() | after.keys())
    return [
        f"{name}: {before.get(name, 'was not there')[:120]} -> {after.get(name, 'is gone')[:120]}"
        for name in names
        if before.get(name) != after.get(name)
    ]
