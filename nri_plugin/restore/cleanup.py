"""Taking a restore back: what is left after a container ended, was removed, or its restore was cut short.

runc and criu may outlive a killed restore-runc: a stopped process tree, its cgroups, mounts in CRIU's work directory
and CRIU's network block would then stay for ever (seen on containerd 1.7 with runc 1.1 and criu 4).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from nri_plugin.restore import mounting
from nri_plugin.restore.plan import Plan
from shared.errors import RestoreError
from shared.run import run

log = logging.getLogger(__name__)

CGROUP_ROOT = Path("/sys/fs/cgroup")
UNLOCK_NETWORK = Path(__file__).resolve().parent.parent / "runtime" / "unlock-network"
ENGINE_PROGRAMS = frozenset({"runc", "crun", "criu", "timeout", "restore-runc", "sh", "dash"})
KILL_WAIT_S = 5.0


def sweep(plan: Plan) -> None:
    """Ends everything an interrupted restore left running; harmless when nothing is left."""
    cgroups = container_cgroups(plan)
    _kill_all(plan, cgroups)
    root, runtime = (plan.read("root") or "").strip(), (plan.read("runtime") or "").strip()
    if root and runtime:
        # The runtime may never have known it, or know it half: its own opinion does not matter here.
        _try("the runtime's record", [runtime, "--root", root, "delete", "--force", plan.container_id])
    for directory in cgroups:
        _remove_cgroup(directory)
    _try("the network lock", [UNLOCK_NETWORK, network_namespace(plan)])


def network_namespace(plan: Plan) -> str:
    """Path of the pod's network namespace; empty for the node's own."""
    for line in (plan.read("namespaces") or "").splitlines():
        kind, _, path = line.partition(" ")
        if kind == "network":
            return path
    return ""


def container_cgroups(plan: Plan) -> list[Path]:
    """The container's own cgroup directories, in every hierarchy."""
    request = plan.request()
    if request is None or not request.cgroups_path:
        return []
    path = request.cgroups_path
    if ":" in path:
        # systemd form "slice:prefix:name" (runc libcontainer/cgroups/systemd)
        parent, prefix, name = path.split(":", 2)
        path = f"{_expand_slice(parent)}/{prefix}-{name}.scope"
    relative = path.strip("/")
    if plan.container_id not in relative or ".." in relative.split("/"):
        return []
    candidates = [CGROUP_ROOT, *(entry for entry in CGROUP_ROOT.iterdir() if entry.is_dir() and not entry.is_symlink())]
    return [found for base in candidates if (found := base / relative).is_dir()]


def _expand_slice(name: str) -> str:
    """``a-b.slice`` lies in ``a.slice/a-b.slice`` (systemd.slice(5))."""
    parts = name.removesuffix(".slice").split("-")
    return "/".join("-".join(parts[: end + 1]) + ".slice" for end in range(len(parts)))


def _kill_all(plan: Plan, cgroups: Iterable[Path]) -> None:
    deadline = time.monotonic() + KILL_WAIT_S
    while found := {*_members(cgroups), *_engine_processes(plan)}:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            log.error("%s: processes %s do not die", plan.container_id[:12], sorted(found))
            return
        time.sleep(0.02)


def _members(cgroups: Iterable[Path]) -> set[int]:
    pids: set[int] = set()
    for directory in cgroups:
        for procs in directory.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                pids.update(int(word) for word in procs.read_text().split())
    return pids - {os.getpid()}


def _engine_processes(plan: Plan) -> set[int]:
    """Runtime and CRIU processes of this container: they name its id or plan, or have a file of the plan open."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            if (entry / "comm").read_text().strip() not in ENGINE_PROGRAMS:
                continue
            words = (entry / "cmdline").read_bytes().split(b"\0")
            mine = any(plan.container_id.encode() in word for word in words) and (
                b"restore" in words or b"create" in words
            )
            if mine or any(str(fd.readlink()).startswith(f"{plan.path}/") for fd in (entry / "fd").iterdir()):
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def _remove_cgroup(directory: Path) -> None:
    for below in sorted(directory.rglob("*"), key=lambda path: len(path.parts), reverse=True):
        if below.is_dir():
            with contextlib.suppress(OSError):
                below.rmdir()
    with contextlib.suppress(OSError):
        directory.rmdir()


def _try(what: str, argv: list[str | Path]) -> None:
    try:
        run(argv, timeout_s=20, check=False)
    except RestoreError as error:
        log.warning("cleaning up %s: %s", what, error)


def sweep_if_interrupted(plan: Plan) -> None:
    """Sweeps when restore-runc began a restore that came to no good end."""
    if plan.has("failed") or (plan.has("restoring") and not plan.has("restored")):
        sweep(plan)


def delete(plan: Plan) -> None:
    """Deletes the plan directory, after everything mounted in it."""
    if plan.path.exists():
        mounting.delete_tree(plan.path)
