"""``nri-restore node doctor``: what this node needs to restore, one finding a check, each with the fix."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nri_plugin.cluster.client import ClusterClient
from nri_plugin.config import Config
from nri_plugin.instance import runs_on
from nri_plugin.node import containerd, crio
from nri_plugin.node.changes import read
from nri_plugin.node.configure import WRAPPER_CONFIG, find
from nri_plugin.node.toml import Table, merged, parse, table
from nri_plugin.restore.kernel import check_kernel
from nri_plugin.scrape import ask, hears_of_containers
from shared.contract import CRIU_CONFIG
from shared.errors import CommandFailed, RestoreError
from shared.run import run

Level = Literal["ok", "warn", "fail"]
LEVELS: tuple[Level, ...] = ("ok", "warn", "fail")
"""In rising order; the exit status is the place of the worst."""
LOW_DISK_BYTES = 1 << 30
OLDEST_CRIU = (3, 16)
"""go-criu ``utils/criu.go``, PodCriuVersion: what containerd and CRI-O ask for."""
OLDEST_RUNC = (1, 1)
"""The first runc with the annotation org.criu.config."""
RECONNECTS_IN_S = 5.0
"""How soon a healthy daemon finds a runtime that was restarted (nri/reconnect.py), with some to spare."""
ANSWERS_IN_S = 5.0
"""How soon a healthy runtime answers."""


@dataclass(frozen=True)
class Finding:
    check: str
    level: Level
    text: str
    fix: str = ""


def number(text: str) -> tuple[int, int] | None:
    """The first version in a program's output."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def criu() -> Finding:
    install = "install criu, at least as new as the one that makes the checkpoints"
    try:
        version = number(run(["criu", "--version"], timeout_s=20).stdout)
    except CommandFailed as error:
        return Finding("criu", "fail", error.sentence, install)
    if version is None or version < OLDEST_CRIU:
        return Finding("criu", "fail", f"criu is {version}; {OLDEST_CRIU} is the oldest that can restore", install)
    return Finding("criu", "ok", f"criu {version[0]}.{version[1]}")


def kernel() -> Finding:
    release = os.uname().release
    try:
        said = check_kernel()
    except RestoreError as error:
        return Finding("kernel", "warn", error.sentence, "criu check tells what the kernel lacks; install criu")
    if not said.passed:
        # A kernel without tun devices restores all that has none; CRIU's check gives up there (criu/cr-check.c).
        lacks = [error for error in said.errors if "criu/tun.c" not in error]
        if said.errors and not lacks:
            return Finding("kernel", "warn", f"{release} has no tun devices", "load the module tun if you need them")
        text = f"{release}: {lacks[0] if lacks else 'criu check fails and says nothing'}"
        return Finding("kernel", "fail", text, "see `criu check`")
    return Finding("kernel", "ok", f"{release} has what criu needs")


def oci_runtime(conf: Path = WRAPPER_CONFIG) -> Finding:
    name = "runc"
    for line in (read(conf) or "").splitlines():
        if line.startswith("runtime="):
            name = line.partition("=")[2]
    try:
        said = run([name, "--version"], timeout_s=20).stdout
    except CommandFailed as error:
        return Finding("oci runtime", "fail", error.sentence, f"install it, or correct runtime= in {conf}")
    version = number(said)
    first = said.splitlines()[0] if said else name
    if said.startswith("crun"):
        if "+CRIU" in said:
            return Finding("oci runtime", "ok", first)
        return Finding(
            "oci runtime",
            "fail",
            f"{first} was built without CRIU",
            "install a crun that `crun --version` says +CRIU of",
        )
    if not said.startswith("runc"):
        return Finding("oci runtime", "fail", f"{first} cannot be wrapped", f"wrap runc or crun: runtime= in {conf}")
    if version is None or version < OLDEST_RUNC:
        return Finding("oci runtime", "fail", f"{first} is too old", "install runc 1.1 or later")
    return Finding("oci runtime", "ok", first)


def cgroup(root: Path = Path("/sys/fs/cgroup")) -> Finding:
    if (root / "cgroup.controllers").exists():
        return Finding("cgroup", "ok", "v2")
    if (root / "memory").is_dir() or (root / "pids").is_dir():
        return Finding("cgroup", "ok", "v1, with v2 beside it" if (root / "unified").is_dir() else "v1")
    return Finding("cgroup", "fail", f"no cgroup hierarchy is mounted on {root}", "mount cgroup2 there")


def lsm(security: Path = Path("/sys/kernel/security/lsm"), enforce: Path = Path("/sys/fs/selinux/enforce")) -> Finding:
    if (read(enforce) or "0").strip() == "1":
        return Finding("lsm", "warn", "SELinux enforces", "not run in our tests: try a restore before you rely on it")
    listed = (read(security) or "").strip()
    if "apparmor" in listed.split(","):
        return Finding("lsm", "warn", "AppArmor is on", "not run in our tests: try a restore before you rely on it")
    return Finding("lsm", "ok", listed or "none")


def nri(path: Path) -> Finding:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(ANSWERS_IN_S)
        try:
            client.connect(str(path))
        except OSError as error:
            fix = "run `nri-restore node configure --restart`, or correct nri.socket in /etc/nri-restore/config.toml"
            return Finding("nri", "fail", f"{path}: {error.strerror or error}", fix)
    return Finding("nri", "ok", f"answers on {path}")


def handler(runtime: containerd.Containerd | crio.Crio, name: str) -> Finding:
    """What the files say; the runtime must have been restarted since."""
    fix = "run `nri-restore node configure --restart`"
    if isinstance(runtime, crio.Crio):
        whole: Table = {}
        for path in [runtime.config, *sorted(runtime.folder.glob("*"))]:
            whole = merged(whole, parse(read(path) or "", path))
        entry = table(whole, "crio", "runtime", "runtimes", name)
        wrapper = entry.get("runtime_path")
        filters = runtime.version >= crio.FILTERS_SINCE
        if wrapper and filters and CRIU_CONFIG not in entry.get("allowed_annotations", []):
            return Finding("handler", "fail", f"CRI-O's {name} does not let {CRIU_CONFIG} through", fix)
    else:
        loaded = containerd.load(runtime, read)
        keys = ("plugins", containerd.CRI[loaded.version], "containerd", "runtimes", name, "options")
        wrapper = table(loaded.whole, *keys).get("BinaryName")
    if not wrapper:
        return Finding("handler", "fail", f"the runtime has no handler {name}", fix)
    if not os.access(wrapper, os.X_OK):
        return Finding("handler", "fail", f"{wrapper}, which the handler runs, is no program", fix)
    return Finding("handler", "ok", f"{name} runs {wrapper}")


def store(runtime: containerd.Containerd | crio.Crio, config: Config) -> Finding:
    """Whether the daemon looks for images where this runtime keeps them."""
    kind, said = "cri-o" if isinstance(runtime, crio.Crio) else "containerd", config.runtime
    if said.name != kind:
        fix = f'run `nri-restore node configure`, or set name = "{kind}" in [runtime] of the configuration'
        return Finding("runtime", "fail", f"{kind} runs here, the daemon expects {said.name}", fix)
    places = [said.storage / "overlay-images", said.storage_run / "overlay-containers"] if kind == "cri-o" else []
    for place in places:
        if not place.is_dir():
            fix = "correct storage and storage_run in [runtime] of the configuration"
            return Finding("runtime", "fail", f"CRI-O has no {place}", fix)
    return Finding("runtime", "ok", kind)


def daemon(config: Config, patience_s: float = RECONNECTS_IN_S) -> Finding:
    """Waits for a daemon that reconnects: the runtime may have been restarted just now."""
    start = "start it: systemctl enable --now nri-restore"
    try:
        if not runs_on(config.paths.plans):
            return Finding("daemon", "fail", "it does not run", start)
    except FileNotFoundError:
        return Finding("daemon", "fail", "it was never started", start)
    deadline = time.monotonic() + patience_s
    while not _told_events(config.paths.plans):
        if time.monotonic() >= deadline:
            text = "it runs, but the runtime does not tell it of containers"
            return Finding("daemon", "fail", text, "see its log; is the runtime up?")
        time.sleep(0.1)
    return Finding("daemon", "ok", "runs, and the runtime tells it of containers")


def _told_events(plans: Path) -> bool:
    try:
        return hears_of_containers(ask(plans))
    except OSError:
        return False


def runtime_class(name: str, kubeconfigs: tuple[str, ...] = ("/etc/kubernetes/kubelet.conf",)) -> Finding:
    apply = f"apply the RuntimeClass {name} (docs/install.md)"
    kubeconfig = next((each for each in kubeconfigs if Path(each).exists()), None)
    if kubeconfig is None or shutil.which("kubectl") is None:
        return Finding("runtimeclass", "warn", "cannot be seen from this node", f"kubectl get runtimeclass {name}")
    words = ["kubectl", "--kubeconfig", kubeconfig, "get", "runtimeclass", name, "-o", "name"]
    asked = run(words, timeout_s=30, check=False)
    if asked.returncode:
        return Finding("runtimeclass", "warn", asked.stderr.strip()[:200] or "not there", apply)
    return Finding("runtimeclass", "ok", name)


def cluster(config: Config) -> Finding:
    client = ClusterClient(config.cluster)
    if not client.enabled:
        return Finding("cluster", "ok", "the Kubernetes API is not used (docs/operate.md)")
    try:
        return Finding("cluster", "ok", f"the Kubernetes API is reached; this is the node {client.look()}")
    except RestoreError as error:
        fix = "see [cluster] in the configuration; restores go on without Events and private images"
        return Finding("cluster", "warn", error.sentence, fix)


def disk(config: Config) -> Finding:
    for folder in (config.paths.state, config.paths.logs, config.paths.plans):
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(there).free
        if free < LOW_DISK_BYTES and folder != config.paths.plans:
            return Finding("disk", "warn", f"{folder} has {free >> 20} MiB left", "make room: restores write there")
    return Finding("disk", "ok", "there is room for state and logs")


def permissions(config: Config) -> Finding:
    if os.geteuid() != 0:
        return Finding("permissions", "fail", "not run as root", "run it as root: restores and most checks need that")
    plans = config.paths.plans
    if plans.exists() and plans.stat().st_mode & 0o077:
        return Finding("permissions", "fail", f"{plans} is open to others", f"chmod 0700 {plans}: it holds memory")
    return Finding("permissions", "ok", "root; plans are closed to others")


def examine(config: Config) -> Iterator[Finding]:
    """Every check; one that cannot be made is a failure of its own."""
    checks: dict[str, Callable[[], Finding]] = {
        "permissions": lambda: permissions(config),
        "kernel": kernel,
        "criu": criu,
        "oci runtime": oci_runtime,
        "cgroup": cgroup,
        "lsm": lsm,
        "nri": lambda: nri(config.nri.socket),
        "runtime": lambda: store(find("auto", None), config),
        "handler": lambda: handler(find("auto", None), config.runtime.handler),
        "daemon": lambda: daemon(config),
        "runtimeclass": lambda: runtime_class(config.runtime.handler),
        "cluster": lambda: cluster(config),
        "disk": lambda: disk(config),
    }
    for name, check in checks.items():
        try:
            yield check()
        except (RestoreError, OSError) as error:
            yield Finding(name, "fail", str(error), "see the sentence")


def worst(findings: list[Finding]) -> int:
    return max(LEVELS.index(each.level) for each in findings)
