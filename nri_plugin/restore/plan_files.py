"""What restore-runc goes by once a restore is decided: the files of its plan (plan.py has what each of them holds)."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nri_plugin.containerd import containerd_pb2 as api
from nri_plugin.containerd.client import CRI_METADATA
from nri_plugin.restore import cover, options, rootfs
from nri_plugin.restore.criu_root import write_criu_root
from nri_plugin.restore.node import Node, OpenedCheckpoint
from nri_plugin.restore.oldlog import log_lines
from nri_plugin.restore.outcome import kept_directory
from nri_plugin.restore.plan import Plan
from nri_plugin.restore.request import RestoreRequest
from shared.criu.dump_host import read_dump_host
from shared.judge.corrections import RLIMITS, Corrections, corrections
from shared.judge.file_rights import Judged, to_judge
from shared.judge.links import held_mounts
from shared.judge.paths import may_mount
from shared.judge.places import to_look_at
from shared.spec import RuntimeSpec


def write_plan(
    node: Node,
    request: RestoreRequest,
    plan: Plan,
    opened: OpenedCheckpoint,
    live: RuntimeSpec,
    record: api.Container,
    overlay: rootfs.Overlay | None,
    images: Path,
    *,
    root_seen: bool,
) -> None:
    """Everything restore-runc reads, but the status.

    ``images``: what CRIU restores from. ``root_seen``: whether the root file system was looked through for links.
    """
    config = node.config
    work = plan.path / "work"
    work.mkdir(mode=0o700, exist_ok=True)
    plan.write("criu.conf", options.criu_config(request, opened.dump))
    plan.write("argv", "".join(f"{word}\n" for word in options.arguments(images, work)))
    plan.write("namespaces", "".join(f"{ns.type} {options.lasting(ns.path)}\n" for ns in live.namespaces if ns.path))
    if any(option in {"shared", "rshared"} for mount in request.mounts for option in mount.options):
        plan.write("shares-mounts", "")
    write_criu_root(plan, request, live)
    if opened.dump.ipc:
        plan.write("restores-ipc", "")
    plan.write("stopped", "".join(f"{pid}\n" for pid in options.stopped_pids(opened.dump)))
    found = corrections(opened.dump, live)
    if limits := adjustments(found):
        plan.write("adjust", limits)
    if found.inherited:
        plan.write("inherited", inherited(found))
    if found.root_mode is not None:
        plan.write("root-mode", f"{found.root_mode:o}\n")
    judged = to_judge(opened.dump, live)
    unsure = to_look_at(opened.dump, live, anyway=not root_seen or bool(judged.paths))
    held = held_mounts(opened.dump, platform.release(), may_mount=may_mount(live))
    # Those of the processes' own mount namespaces all follow again.
    held_paths = [mount.mountpoint for mount in held if mount.namespace == opened.dump.root.ids.mnt_ns]
    if changes := open_files(unsure, judged) + mount_changes(found, held_paths):
        plan.write("cover", changes)
        plan.write("python", f"{sys.executable}\n{cover.__file__}\n")
    plan.write("keep", f"{kept_directory(config, request)}\n")
    if overlay is not None:
        rootfs.write_overlay(plan, "mount", overlay)
    if request.on_failure == "start" and request.can_start(layered=opened.image.layered):
        plan.write("start-on-failure", "")
    log_path = cri_log_path(record)
    checkpoint = opened.checkpoint
    if checkpoint.log_member and log_path and not request.native:
        with opened.files() as files:
            lines = log_lines(
                files,
                checkpoint.log_member,
                config.limits.old_log_bytes,
                asked_at=checkpoint.checkpointed_at,
                frozen_s=read_dump_host(files).frozen_s,
            )
        plan.write("log", lines)
        plan.write("logpath", f"{log_path}\n")


def adjustments(found: Corrections) -> str:
    """What restore-runc puts right in every process: ``oom_score_adj N``, or a limit as prlimit(1) names it, a line."""
    lines = [f"oom_score_adj {found.oom_score_adj}"] if found.oom_score_adj is not None else []
    lines += [f"{limit.type.removeprefix('RLIMIT_').lower()} {limit.soft}:{limit.hard}" for limit in found.limits]
    return "".join(f"{line}\n" for line in lines)


def inherited(found: Corrections) -> str:
    """By the number of each limit, ``name=HIGHEST`` of those that are to be the runtime's own where that is less."""
    highest = {limit.type: "unlimited" if limit.hard >> 63 else str(limit.hard) for limit in found.inherited}
    return " ".join(f"{kind.removeprefix('RLIMIT_').lower()}={highest.get(kind, 0)}" for kind in RLIMITS) + "\n"


def open_files(opened: Sequence[str], judged: Judged) -> str:
    """What cover.py looks at: ``how what``, each ended by a zero byte, which no path has.

    ``opened``: what processes may have open, where that is to be looked at before.
    """
    lines = [f"{'judged' if path in judged.paths else 'opened'} {path}" for path in opened]
    users = [(user.uid, user.gid, judged.capabilities, *user.groups) for user in judged.users]
    lines += [f"user {' '.join(map(str, numbers))}" for numbers in users]
    return "".join(f"{line}\0" for line in lines)


def mount_changes(found: Corrections, held: Sequence[str]) -> str:
    """What cover.py puts right in the mount tree: ``how path``, each ended by a zero byte.

    ``held``: mounts on which CRIU followed no link.
    """
    lines = [f"masked {path}" for path in found.masked] + [f"readonly {path}" for path in found.read_only]
    lines += [f"rro {path}" for path in found.recursive] + [f"follow {path}" for path in held]
    return "".join(f"{line}\0" for line in lines)


def cri_log_path(record: api.Container) -> Path | None:
    """Where the CRI writes the container's log; None without one."""
    try:
        path: Any = json.loads(record.extensions[CRI_METADATA].value)["Metadata"]["LogPath"]
    except (ValueError, KeyError, TypeError):
        return None
    return Path(path) if path else None
