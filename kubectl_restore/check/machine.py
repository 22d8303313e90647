"""What is known of the machine to restore on: this one, or a node as the Kubernetes API describes it.

Sources: kubernetes core/v1 NodeSystemInfo; node-feature-discovery's labels (docs/usage/features.md, cpu-cpuid.*);
contract.NODE_FACTS; /proc/cpuinfo, uname(2), ``criu --version``.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shared import contract
from shared.criu.tasks import Machine as CriuMachine
from shared.errors import CommandFailed, RestoreError
from shared.run import run

_CRIU_VERSION: Final = re.compile(r"^Version: (\S+)", re.MULTILINE)
_NFD: Final = "feature.node.kubernetes.io/cpu-cpuid."
_NFD_FLAGS: Final = {
    "ADX": "adx",
    "AESNI": "aes",
    "AMXTILE": "amx_tile",
    "AVX": "avx",
    "AVX2": "avx2",
    "AVX512BITALG": "avx512_bitalg",
    "AVX512BW": "avx512bw",
    "AVX512CD": "avx512cd",
    "AVX512DQ": "avx512dq",
    "AVX512F": "avx512f",
    "AVX512VBMI": "avx512vbmi",
    "AVX512VBMI2": "avx512_vbmi2",
    "AVX512VL": "avx512vl",
    "AVX512VNNI": "avx512_vnni",
    "AVX512VPOPCNTDQ": "avx512_vpopcntdq",
    "FMA3": "fma",
    "FMA4": "fma4",
    "GFNI": "gfni",
    "MOVBE": "movbe",
    "SHA": "sha_ni",
    "VAES": "vaes",
    "VPCLMULQDQ": "vpclmulqdq",
    "XOP": "xop",
}
"""Labels as /proc/cpuinfo names the flags; NFD leaves most others out by default (attributeDenylist)."""
GO_ARCHITECTURES: Final[Mapping[CriuMachine, str]] = {
    "x86_64": "amd64",
    "arm": "arm",
    "aarch64": "arm64",
    "ppc64": "ppc64le",
    "s390": "s390x",
    "mips": "mips64le",
    "loongarch64": "loong64",
    "riscv64": "riscv64",
}
"""CRIU's machine types (images/core.proto) as Go, OCI and Kubernetes name them."""
_UNAME_MACHINES: Final = {"arm64": "aarch64", "armv7l": "arm", "armv6l": "arm", "ppc64le": "ppc64", "s390x": "s390"}


@dataclass(frozen=True, slots=True)
class Machine:
    """None is unknown."""

    name: str
    os: str
    architecture: str | None
    """As CRIU names it (Task.machine)."""
    kernel: str | None
    criu_version: str | None
    criu_missing: bool
    cgroup_version: int | None
    cpu: str | None
    cpu_flags: frozenset[str] | None
    """As /proc/cpuinfo names them."""
    cpu_judged: frozenset[str] | None
    """Flags that are absent if they are not in ``cpu_flags``; None: all."""


def this_machine() -> Machine:
    """Asks the kernel and CRIU; raises nothing."""
    machine = platform.machine()
    model, flags = _cpuinfo(Path("/proc/cpuinfo"))
    criu = _criu_version()
    return Machine(
        name=platform.node() or "this machine",
        os=platform.system().lower(),
        architecture=_UNAME_MACHINES.get(machine, machine),
        kernel=platform.release(),
        criu_version=criu or None,
        criu_missing=criu == "",
        cgroup_version=_cgroup_version(Path("/sys/fs/cgroup")),
        cpu=model,
        cpu_flags=flags,
        cpu_judged=None,
    )


def node_machine(node: Mapping[str, Any]) -> Machine:
    """From a Node of the API; what is missing or malformed is unknown."""
    metadata = _mapping(node.get("metadata"))
    info = _mapping(_mapping(node.get("status")).get("nodeInfo"))
    labels, annotations = _mapping(metadata.get("labels")), _mapping(metadata.get("annotations"))
    told = _node_facts(annotations.get(contract.NODE_FACTS))
    flags, judged = _node_flags(told, labels)
    return Machine(
        name=str(metadata.get("name", "the node")),
        os=_text(info.get("operatingSystem")) or "linux",
        architecture=_criu_machine(_text(info.get("architecture"))),
        kernel=_text(info.get("kernelVersion")),
        criu_version=_text(told.get("criu")),
        criu_missing=told.get("criu") == "",
        cgroup_version=told.get("cgroup") if told.get("cgroup") in (1, 2) else None,
        cpu=_text(told.get("cpu")),
        cpu_flags=flags,
        cpu_judged=judged,
    )


def _criu_machine(architecture: str | None) -> str | None:
    return next((machine for machine, name in GO_ARCHITECTURES.items() if name == architecture), architecture)


def _node_facts(document: object) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(document)) if isinstance(document, str) else {}
    except (ValueError, RecursionError):
        return {}


def _node_flags(
    told: Mapping[str, Any], labels: Mapping[str, Any]
) -> tuple[frozenset[str] | None, frozenset[str] | None]:
    listed = told.get("cpuFlags")
    if isinstance(listed, list) and listed:
        return frozenset(map(str, listed)), None
    labelled = {name.removeprefix(_NFD) for name, value in labels.items() if name.startswith(_NFD) and value == "true"}
    if not labelled:
        return None, None
    return frozenset(_NFD_FLAGS[name] for name in labelled & set(_NFD_FLAGS)), frozenset(_NFD_FLAGS.values())


def _criu_version() -> str | None:
    """Empty: there is no criu. None: it does not say."""
    try:
        found = _CRIU_VERSION.search(run(["criu", "--version"], timeout_s=10).stdout)
    except CommandFailed as error:
        return "" if error.status == 127 else None
    except (RestoreError, OSError):
        return None
    return found[1] if found else None


def _cgroup_version(root: Path) -> int | None:
    if not root.is_dir():
        return None
    return 2 if (root / "cgroup.controllers").exists() else 1


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


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
