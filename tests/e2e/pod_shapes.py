"""Ordinary shapes of pods: every kind of setting and volume a manifest may have, a counter in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.e2e.node.node import Node
from tests.e2e.node.specs import ContainerSpec, VolumeMount

FOLDER: Final = "/var/lib/shapes"
_COUNTER: Final = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"


@dataclass(frozen=True)
class Shape:
    name: str
    container: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ContainerSpec."""
    pod: Mapping[str, Any] = field(default_factory=dict)
    """Fields of PodSpec."""
    sees: str = "true"
    """A shell script that succeeds in such a container."""
    before: str = ""
    """What the counter's shell does first."""
    init: bool = False
    """An init container that writes ``ready`` into the volume ``shared``, starts many processes, and ends."""
    sidecar: bool = False
    """A second container that is not restored."""
    user: int | None = None
    """The dump is made one of this user and group: another than root takes CAP_SYS_RESOURCE (prlimit(2))."""
    group: int = 0

    def spec(self, image: str) -> ContainerSpec:
        script = f"{self.before}; {_COUNTER}" if self.before else _COUNTER
        return ContainerSpec(image, "main", ("sh", "-c", script), **self.container)


def _volume(path: str, volume: str, **fields: Any) -> dict[str, Any]:
    return {"mounts": (VolumeMount(path, volume, **fields),)}


_ZOMBIES: Final = "test $(cat /proc/[0-9]*/status | grep -c 'State:.Z') -ge 2"
_USER: Final = {"run_as_user": 1000, "run_as_group": 1000}
_DROP_ALL: Final = {"drop_capabilities": ("ALL",)}
_KINDS: Final = """
import ctypes, mmap, os, signal, time
libc = ctypes.CDLL(None)
shared = mmap.mmap(-1, 8192)
file = os.memfd_create("state")
os.ftruncate(file, 8192)
mapped = mmap.mmap(file, 8192)
shared[:5] = mapped[:5] = b"state"
timer, ring = ctypes.c_int(), ctypes.c_long()
assert libc.timer_create(1, None, ctypes.byref(timer)) == 0
assert libc.syscall(206, 8, ctypes.byref(ring)) == 0
assert libc.syscall(324, 16, 0, 0) == 0
locked = ctypes.create_string_buffer(4096)
assert libc.mlock(locked, 4096) == 0
signal.setitimer(signal.ITIMER_VIRTUAL, 1000)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
os.kill(os.getpid(), signal.SIGUSR1)
os.nice(3)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setpgid(0, 0)
        if os.fork() > 0:
            os._exit(0)
print("made", flush=True)
while shared[:5] == mapped[:5] == b"state":
    time.sleep(0.1)
"""
"""Every kind of memory but System V's, timers, an AIO ring, a pending signal, sessions and groups without a leader."""
_STATES: Final = (
    "test $(cat /proc/[0-9]*/status | grep -c 'Name:.python3') = 4 "
    "&& cat /proc/[0-9]*/status | grep -q 'ShdPnd:.0000000000000200'"
)
_SHARED: Final = VolumeMount("/shared", "shared")
_PYTHON: Final = tuple(
    VolumeMount(path, f"/usr{source}", read_only=True)
    for path, source in (("/usr", ""), ("/lib", "/lib"), ("/lib64", "/lib64"))
)
"""The node's own Python, for programs that busybox cannot be."""
_THREADS: Final = (
    "import threading, time; [threading.Thread(target=time.sleep, args=(3600,)).start() for _ in range(3)]"
)
_THREADS_CONFINED: Final = (
    "test $(cat /proc/[0-9]*/task/*/status | grep -c 'Seccomp:.2') -ge 5 "
    "&& ! cat /proc/[0-9]*/task/*/status | grep -q 'Seccomp:.0'"
)
SHAPES: Final = (
    Shape("plain"),
    Shape("uid", _USER, user=1000, group=1000, sees='test "$(id -u):$(id -g)" = 1000:1000'),
    Shape("uid-with-its-own-group", {"run_as_user": 1000}, user=1000, group=1000),
    Shape(
        "restricted",
        {**_USER, **_DROP_ALL, "no_new_privileges": True, "seccomp": "RuntimeDefault", "read_only_root": True},
        user=1000,
        group=1000,
        sees="grep -q 'NoNewPrivs:.1' /proc/1/status && grep -q 'Seccomp:.2' /proc/1/status && ! touch /tmp/x",
    ),
    Shape("run-as-group", {"run_as_user": 0, "run_as_group": 3000}, user=0, group=3000),
    Shape("fs-group", _volume("/data", "data"), {"groups": (2000,)}, sees="grep -q 'Groups:.*2000' /proc/1/status"),
    Shape("supplemental-groups", {}, {"groups": (2000, 3000)}, sees="grep -q 'Groups:.*3000' /proc/1/status"),
    Shape("capabilities-dropped", _DROP_ALL, sees="grep -q 'CapBnd:.0000000000000000' /proc/1/status"),
    Shape("capability-dropped", {"drop_capabilities": ("NET_RAW",)}),
    Shape("capability-kept", {**_DROP_ALL, "add_capabilities": ("NET_BIND_SERVICE",)}),
    Shape(
        "capability-added",
        {"add_capabilities": ("NET_ADMIN",)},
        sees="grep -q 'CapEff:.00000000a80435fb' /proc/1/status",
    ),
    Shape("system-administrator", {"add_capabilities": ("SYS_ADMIN",)}),
    Shape("no-new-privileges", {"no_new_privileges": True}),
    Shape("seccomp-default", {"seccomp": "RuntimeDefault"}, sees="grep -q 'Seccomp:.2' /proc/1/status"),
    Shape(
        "seccomp-default-of-threads",
        {"seccomp": "RuntimeDefault", "mounts": _PYTHON},
        before=f"python3 -c '{_THREADS}' & until {_THREADS_CONFINED}; do sleep 0.1; done",
        sees=_THREADS_CONFINED,
    ),
    Shape(
        "kinds-of-memory-and-timers",
        {"mounts": _PYTHON},
        before=f"python3 -c '{_KINDS}' & until {_STATES}; do sleep 0.1; done",
        sees=_STATES,
    ),
    Shape("seccomp-unconfined", {"seccomp": "Unconfined"}, sees="grep -q 'Seccomp:.0' /proc/1/status"),
    Shape("read-only-root", {"read_only_root": True}, sees="! touch /root/x"),
    Shape(
        "read-only-root-with-tmp",
        {"read_only_root": True, **_volume("/tmp", "tmp")},
        sees="! touch /root/x && touch /tmp/x",
    ),
    Shape("empty-dir", _volume("/data", "data"), before="echo x > /data/x", sees=": > /data/y"),
    Shape("empty-dir-in-memory", _volume("/cache", f"{FOLDER}/memory"), sees="grep -q ' /cache tmpfs' /proc/mounts"),
    Shape("host-path", _volume("/node", f"{FOLDER}/host"), before="echo $$ > /node/x", sees="test -s /node/x"),
    Shape("config-map", _volume("/settings", f"{FOLDER}/settings", read_only=True), sees="grep -q on /settings/mode"),
    Shape(
        "config-map-file",
        _volume("/etc/mode", f"{FOLDER}/settings/..data/mode", read_only=True),
        sees="grep -q on /etc/mode && ! echo off > /etc/mode",
    ),
    Shape("secret-below-run", _volume("/var/run/secrets/own", f"{FOLDER}/settings", read_only=True)),
    Shape("sub-path", _volume("/data", "data", sub_path="part"), sees=": > /data/y"),
    Shape("several-volumes", {"mounts": tuple(VolumeMount(f"/data/{each}", each) for each in ("a", "b", "c"))}),
    Shape("recursive-read-only", _volume("/data", f"{FOLDER}/host", read_only=True, recursive=True)),
    Shape("host-to-container", _volume("/data", f"{FOLDER}/host", propagation="HostToContainer")),
    Shape("no-service-account", {}, {"service_account": False}, sees="test ! -e /var/run/secrets"),
    Shape("init-container", {"mounts": (_SHARED,)}, init=True, sees="grep -q ready /shared/state"),
    Shape("sidecar", {"mounts": (_SHARED,)}, sidecar=True, sees="grep -q beside /shared/state"),
    Shape("host-network", {}, {"host_network": True}),
    Shape("host-pid", {}, {"host_pid": True}),
    Shape("host-ipc", {}, {"host_ipc": True}),
    # CRIU needs the numbers that the processes had; the first ones are those of the pod's own process and its child.
    Shape(
        "shared-processes",
        {"mounts": (_SHARED,)},
        {"share_processes": True},
        init=True,
        sees="ps | grep -q '[s]leep 3600'",
    ),
    Shape(
        "zombies",
        before=f"sh -c ': & : & exec tail -f /dev/null' & until {_ZOMBIES}; do sleep 0.1; done",
        sees=_ZOMBIES,
    ),
    Shape("terminal", {"tty": True, "stdin": True}),
    Shape("standard-input", {"stdin": True}),
    Shape(
        "environment", {"env": {"MODE": "on", "EMPTY": ""}}, sees="tr '\\0' '\\n' < /proc/1/environ | grep -q MODE=on"
    ),
    Shape("working-directory", {"working_dir": "/etc"}, sees='test "$(readlink /proc/1/cwd)" = /etc'),
    Shape("limits", {"memory_limit_bytes": 64 << 20, "cpu_quota": 50_000}),
    Shape("processor", {"cpuset": "0"}, {"cgroup_parent": "/kubepods/guaranteed-shape"}),
    Shape("privileged", {"privileged": True}, {"privileged": True}),
    Shape(
        "bidirectional",
        {"privileged": True, **_volume("/data", f"{FOLDER}/host", propagation="Bidirectional")},
        {"privileged": True},
    ),
    Shape("sysctls", {}, {"sysctls": {"net.ipv4.ip_unprivileged_port_start": "80", "kernel.shm_rmid_forced": "1"}}),
    Shape("termination-path", {"termination_path": "/var/end"}, sees="echo x > /var/end"),
    Shape("shared-memory", before="echo x > /dev/shm/x", sees=": > /dev/shm/y"),
    Shape("device", {"devices": ("/dev/fuse",)}, sees="test -c /dev/fuse"),
    Shape("proc-unmasked", {"unmasked": True}, sees="! grep -q ' /proc/kcore ' /proc/mounts"),
    Shape("server", before="httpd -p 80 -h /etc", sees="wget -q -O - http://127.0.0.1/passwd"),
    Shape(
        "file-of-an-ended-child",
        before="sleep 0.1 & exec 3</proc/$!/maps; wait",
        sees="readlink /proc/1/fd/3 | grep -q '^/proc/[0-9]*/maps$'",
    ),
)


def lay_out(node: Node) -> None:
    """The folders of the node that shapes mount."""
    node.sh(
        f"mkdir -p {FOLDER}/memory {FOLDER}/host {FOLDER}/settings/..data; mount -t tmpfs tmpfs {FOLDER}/memory; "
        f"mount --make-shared --bind {FOLDER}/host {FOLDER}/host; "
        f"echo on > {FOLDER}/settings/..data/mode; ln -s ..data/mode {FOLDER}/settings/mode"
    )


def clear_away(node: Node) -> None:
    node.sh(f"umount {FOLDER}/memory {FOLDER}/host; rm -r {FOLDER}")
