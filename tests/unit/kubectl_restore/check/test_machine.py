from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_restore.check.machine import node_machine

NFD = "feature.node.kubernetes.io/cpu-cpuid."


def node(*, facts: object = None, labels: dict[str, str] | None = None, **info: str) -> dict[str, Any]:
    annotations = {} if facts is None else {"nri-restore/node-facts": facts}
    return {
        "metadata": {"name": "node-1", "labels": labels or {}, "annotations": annotations},
        "status": {
            "nodeInfo": {"operatingSystem": "linux", "architecture": "amd64", "kernelVersion": "6.8.0-41", **info}
        },
    }


def test_what_every_node_says() -> None:
    found = node_machine(node(architecture="arm64"))
    assert (found.name, found.os, found.architecture, found.kernel) == ("node-1", "linux", "aarch64", "6.8.0-41")
    assert (found.criu_version, found.criu_missing, found.cgroup_version, found.cpu_flags) == (None, False, None, None)


def test_what_an_annotation_adds() -> None:
    facts = json.dumps({"criu": "4.2", "cgroup": 2, "cpu": "A CPU", "cpuFlags": ["avx", "avx2"], "lsm": "apparmor"})
    found = node_machine(node(facts=facts))
    assert found.lsm == "apparmor"
    assert (found.criu_version, found.cgroup_version, found.cpu) == ("4.2", 2, "A CPU")
    assert (found.cpu_flags, found.cpu_judged) == (frozenset({"avx", "avx2"}), None)


def test_node_without_criu() -> None:
    found = node_machine(node(facts='{"criu": ""}'))
    assert (found.criu_version, found.criu_missing) == (None, True)


@pytest.mark.parametrize(
    "facts", ["", "{", "[]", "3", '{"criu": 4, "cgroup": "2", "cpu": [], "cpuFlags": "avx"}', "[" * 10_000, 5]
)
def test_annotation_that_is_nonsense_says_nothing(facts: object) -> None:
    found = node_machine(node(facts=facts))
    assert (found.criu_version, found.criu_missing, found.cgroup_version, found.cpu) == (None, False, None, None)
    assert found.cpu_flags is None


def test_labels_of_feature_discovery_judge_only_what_they_can_name() -> None:
    found = node_machine(node(labels={f"{NFD}AVX2": "true", f"{NFD}AVX512F": "false", f"{NFD}ODD": "true"}))
    assert found.cpu_flags == frozenset({"avx2"})
    assert found.cpu_judged is not None
    assert "avx512f" in found.cpu_judged
    assert "sse4_2" not in found.cpu_judged


@pytest.mark.parametrize("document", [{}, {"metadata": 1, "status": []}, {"status": {"nodeInfo": {"architecture": 4}}}])
def test_document_that_is_no_node_is_all_unknown(document: dict[str, Any]) -> None:
    found = node_machine(document)
    assert (found.architecture, found.kernel) == (None, None)


def test_processor_of_an_unknown_name_keeps_it() -> None:
    assert node_machine(node(architecture="mips")).architecture == "mips"
