from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from kubectl_restore.check import machine as machines
from kubectl_restore.check.machine import node_machine, this_machine

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
    facts = json.dumps({"criu": "4.2", "cgroup": 2, "cpu": "A CPU", "cpuFlags": ["avx", "avx2"]})
    found = node_machine(node(facts=facts))
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


def put_criu(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "criu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


def test_this_machine_asks_criu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_criu(tmp_path, "echo Version: 4.2.1; echo GitID: x", monkeypatch)
    assert this_machine().criu_version == "4.2.1"


@pytest.mark.parametrize("script", ["exit 1", "echo nothing"])
def test_criu_that_does_not_say_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    put_criu(tmp_path, script, monkeypatch)
    found = this_machine()
    assert (found.criu_version, found.criu_missing) == (None, False)


def test_this_machine_without_criu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = this_machine()
    assert (found.criu_version, found.criu_missing, found.os) == (None, True, "linux")


def test_cgroup_version_by_what_is_mounted(tmp_path: Path) -> None:
    assert machines._cgroup_version(tmp_path / "none") is None
    assert machines._cgroup_version(tmp_path) == 1
    (tmp_path / "cgroup.controllers").touch()
    assert machines._cgroup_version(tmp_path) == 2


def test_only_flags_of_every_processor_count(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("model name\t: A CPU\nflags\t: sse2 avx\n\nmodel name\t: B\nflags\t: sse2\n")
    assert machines._cpuinfo(path) == ("A CPU", frozenset({"sse2"}))
    assert machines._cpuinfo(tmp_path / "none") == (None, None)
