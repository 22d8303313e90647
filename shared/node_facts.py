"""What is known of a machine to restore on: this one, or another as its annotation ``nri-restore/node-facts`` says.

Sources: /proc/cpuinfo, uname(2), ``criu --version``, ``criu cpuinfo dump``; criu/lsm.c, kerndat_lsm, for which security
module CRIU takes the machine to have.
"""

from __future__ import annotations

import json
import platform
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from google.protobuf.message import DecodeError

from shared.criu.criu_pb2 import CpuinfoEntry
from shared.criu.images import Kind, split
from shared.errors import CommandFailed, RestoreError
from shared.run import run

Lsm = Literal["none", "selinux", "apparmor"]
LSMS: Final[tuple[Lsm, ...]] = ("none", "selinux", "apparmor")
_CRIU_VERSION: Final = re.compile(r"^Version: (\S+)", re.MULTILINE)
_UNAME_MACHINES: Final = {"arm64": "aarch64", "armv7l": "arm", "armv6l": "arm", "ppc64le": "ppc64", "s390x": "s390"}
_CRIU_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """None is unknown."""

    name: str
    """As sentences call the machine."""
    os: str
    architecture: str | None
    """As CRIU names it (Task.machine)."""
    kernel: str | None
    """Release, as uname -r says."""
    criu_version: str | None
    criu_missing: bool
    cgroup_version: int | None
    """1 or 2."""
    cpu: str | None
    """The processor's name."""
    cpu_flags: frozenset[str] | None
    """As /proc/cpuinfo names them."""
    cpu_judged: frozenset[str] | None = None
    """Flags that are absent if they are not in ``cpu_flags``; None: all."""
    lsm: Lsm | None = None
    xsave_bytes: int | None = None
    """How much the processor's extended state takes, as CRIU records it in cpuinfo.img."""


def gather(name: str | None = None) -> NodeFacts:
    """Asks the kernel and CRIU about this machine, called ``name`` in sentences; raises nothing.

    Runs criu twice, which takes some 20 ms.
    """
    machine = platform.machine()
    model, flags = _cpuinfo(Path("/proc/cpuinfo"))
    criu = _criu_version()
    return NodeFacts(
        name=name or platform.node() or "this machine",
        os=platform.system().lower(),
        architecture=_UNAME_MACHINES.get(machine, machine),
        kernel=platform.release(),
        criu_version=criu or None,
        criu_missing=criu == "",
        cgroup_version=_cgroup_version(Path("/sys/fs/cgroup")),
        cpu=model,
        cpu_flags=flags,
        lsm=_lsm(Path("/sys")),
        xsave_bytes=_xsave_bytes() if criu and machine == "x86_64" else None,
    )


def to_annotation(facts: NodeFacts) -> str:
    """What a Node of the API does not say itself, as the JSON of the annotation; what is unknown is left out."""
    told: dict[str, object] = {
        "criu": "" if facts.criu_missing else facts.criu_version,
        "cgroup": facts.cgroup_version,
        "lsm": facts.lsm,
        "cpu": facts.cpu,
        "xsave": facts.xsave_bytes,
        "cpuFlags": sorted(facts.cpu_flags) if facts.cpu_flags is not None else None,
    }
    return json.dumps({key: value for key, value in told.items() if value is not None}, separators=(",", ":"))


def from_annotation(document: object, facts: NodeFacts) -> NodeFacts:
    """``facts`` with what the annotation adds; what is malformed says nothing."""
    told = _object(document)
    flags, xsave = told.get("cpuFlags"), told.get("xsave")
    return replace(
        facts,
        criu_version=_text(told.get("criu")),
        criu_missing=told.get("criu") == "",
        cgroup_version=told.get("cgroup") if told.get("cgroup") in (1, 2) else None,
        cpu=_text(told.get("cpu")),
        cpu_flags=frozenset(map(str, flags)) if isinstance(flags, list) and flags else None,
        cpu_judged=None,
        lsm=next((lsm for lsm in LSMS if lsm == told.get("lsm")), None),
        xsave_bytes=xsave if isinstance(xsave, int) and 0 < xsave < 1 << 20 else None,
    )


def _object(document: object) -> Mapping[str, Any]:
    try:
        told = json.loads(document) if isinstance(document, str) else {}
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _criu_version() -> str | None:
    """Empty: there is no criu. None: it does not say."""
    try:
        found = _CRIU_VERSION.search(run(["criu", "--version"], timeout_s=_CRIU_S).stdout)
    except CommandFailed as error:
        return "" if error.status == 127 else None
    except (RestoreError, OSError):
        return None
    return found[1] if found else None


def _xsave_bytes() -> int | None:
    try:
        with tempfile.TemporaryDirectory(prefix="nri-restore-") as folder:
            run(["criu", "cpuinfo", "dump", "--images-dir", folder], timeout_s=_CRIU_S)
            image = (Path(folder) / Kind.CPUINFO.file()).read_bytes()
        entries = [CpuinfoEntry.FromString(piece) for piece in split(image, Kind.CPUINFO, Kind.CPUINFO.file())]
    except (RestoreError, OSError, DecodeError):
        return None
    return next((cpu.xsave_size for entry in entries for cpu in entry.x86_entry if cpu.xsave_size), None)


def _cgroup_version(root: Path) -> int | None:
    if not root.is_dir():
        return None
    return 2 if (root / "cgroup.controllers").exists() else 1


def _lsm(sys: Path) -> Lsm:
    if (sys / "kernel/security/apparmor").exists():
        return "apparmor"
    return "selinux" if (sys / "fs/selinux").exists() else "none"


def _cpuinfo(path: Path) -> tuple[str | None, frozenset[str] | None]:
    model = flags = None
    try:
        for line in path.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = model or value.strip()
            elif key.strip() in ("flags", "Features"):
                # What only some processors have may not be there after the scheduler moved the process.
                found = frozenset(value.split())
                flags = found if flags is None else flags & found
    except OSError:
        return None, None
    return model, flags
