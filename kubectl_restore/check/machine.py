"""A node to restore on, as the Kubernetes API describes it.

Sources: kubernetes core/v1 NodeSystemInfo; node-feature-discovery's labels (docs/usage/features.md, cpu-cpuid.*).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from shared import contract
from shared.criu.tasks import Machine as CriuMachine
from shared.node_facts import NodeFacts, from_annotation

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


def node_machine(node: Mapping[str, Any]) -> NodeFacts:
    """From a Node of the API; what is missing or malformed is unknown."""
    metadata = _mapping(node.get("metadata"))
    info = _mapping(_mapping(node.get("status")).get("nodeInfo"))
    labels, annotations = _mapping(metadata.get("labels")), _mapping(metadata.get("annotations"))
    bare = NodeFacts(
        name=str(metadata.get("name", "the node")),
        os=_text(info.get("operatingSystem")) or "linux",
        architecture=_criu_machine(_text(info.get("architecture"))),
        kernel=_text(info.get("kernelVersion")),
        criu_version=None,
        criu_missing=False,
        cgroup_version=None,
        cpu=None,
        cpu_flags=None,
    )
    facts = from_annotation(annotations.get(contract.NODE_FACTS), bare)
    return facts if facts.cpu_flags is not None else _labelled(facts, labels)


def _criu_machine(architecture: str | None) -> str | None:
    return next((machine for machine, name in GO_ARCHITECTURES.items() if name == architecture), architecture)


def _labelled(facts: NodeFacts, labels: Mapping[str, Any]) -> NodeFacts:
    """``facts`` with the processor's flags as node-feature-discovery labels them."""
    labelled = {name.removeprefix(_NFD) for name, value in labels.items() if name.startswith(_NFD) and value == "true"}
    if not labelled:
        return facts
    flags = frozenset(_NFD_FLAGS[name] for name in labelled & set(_NFD_FLAGS))
    return replace(facts, cpu_flags=flags, cpu_judged=frozenset(_NFD_FLAGS.values()))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
