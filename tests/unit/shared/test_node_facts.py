from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from shared import node_facts
from shared.criu.criu_pb2 import CpuinfoEntry, CpuinfoX86Entry
from shared.criu.images import Kind, join
from shared.node_facts import NodeFacts, from_annotation, gather, to_annotation
from tests.support.checkpoints import completed

BARE = NodeFacts(
    name="node-1",
    os="linux",
    architecture="x86_64",
    kernel="6.8.0",
    criu_version=None,
    criu_missing=False,
    cgroup_version=None,
    cpu=None,
    cpu_flags=None,
)


def put_criu(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "criu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


def test_this_machine_asks_criu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_criu(tmp_path, "echo Version: 4.2.1; echo GitID: x", monkeypatch)
    assert gather().criu_version == "4.2.1"


@pytest.mark.parametrize("script", ["exit 1", "echo nothing"])
def test_criu_that_does_not_say_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    put_criu(tmp_path, script, monkeypatch)
    found = gather()
    assert (found.criu_version, found.criu_missing) == (None, False)


def test_this_machine_without_criu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = gather()
    assert (found.criu_version, found.criu_missing, found.os) == (None, True, "linux")


def test_cgroup_version_by_what_is_mounted(tmp_path: Path) -> None:
    assert node_facts._cgroup_version(tmp_path / "none") is None
    assert node_facts._cgroup_version(tmp_path) == 1
    (tmp_path / "cgroup.controllers").touch()
    assert node_facts._cgroup_version(tmp_path) == 2


def test_only_flags_of_every_processor_count(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("model name\t: A CPU\nflags\t: sse2 avx\n\nmodel name\t: B\nflags\t: sse2\n")
    assert node_facts._cpuinfo(path) == ("A CPU", frozenset({"sse2"}))
    assert node_facts._cpuinfo(tmp_path / "none") == (None, None)


def test_size_of_the_extended_state_is_what_criu_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "image"
    image.write_bytes(join(Kind.CPUINFO, [completed(CpuinfoEntry(x86_entry=[CpuinfoX86Entry(xsave_size=2440)]))]))
    put_criu(tmp_path, f'[ "$1" = cpuinfo ] && cp {image} "$4/cpuinfo.img"', monkeypatch)
    assert node_facts._xsave_bytes() == 2440


@pytest.mark.parametrize("script", ["exit 1", "true", 'echo nonsense > "$4/cpuinfo.img"'])
def test_size_of_the_extended_state_that_criu_does_not_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    put_criu(tmp_path, script, monkeypatch)
    assert node_facts._xsave_bytes() is None


@pytest.mark.parametrize(
    ("folder", "lsm"), [("kernel/security/apparmor", "apparmor"), ("fs/selinux", "selinux"), ("fs", "none")]
)
def test_security_module_is_the_one_criu_sees(tmp_path: Path, folder: str, lsm: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    assert node_facts._lsm(tmp_path) == lsm


def test_annotation_gives_back_what_was_gathered() -> None:
    facts = replace(
        BARE,
        criu_version="4.2.1",
        cgroup_version=2,
        cpu="A CPU",
        cpu_flags=frozenset({"avx", "sse2"}),
        lsm="none",
        xsave_bytes=2440,
    )
    assert from_annotation(to_annotation(facts), BARE) == facts


def test_annotation_tells_that_there_is_no_criu_and_leaves_out_what_is_unknown() -> None:
    text = to_annotation(replace(BARE, criu_missing=True))
    assert json.loads(text) == {"criu": ""}
    assert from_annotation(text, BARE).criu_missing


@pytest.mark.parametrize("text", ['{"xsave": -1, "lsm": "smack"}', '{"xsave": "2440", "lsm": 1}', '{"xsave": 1e9}'])
def test_annotation_of_another_form_says_nothing(text: str) -> None:
    assert from_annotation(text, BARE) == BARE
