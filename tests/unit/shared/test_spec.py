from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from shared.spec import Capabilities, Device, Mount, Namespace, Rlimit, parse_spec

Refused = Callable[..., Any]

FULL: dict[str, Any] = {
    "process": {
        "terminal": True,
        "user": {"uid": 1000, "gid": 2000, "additionalGids": [3, 4], "umask": 18},
        "args": ["a", "b"],
        "env": ["A=1", "B="],
        "cwd": "/work",
        "capabilities": {
            "bounding": ["CAP_KILL", "CAP_CHOWN"],
            "effective": ["CAP_KILL"],
            "permitted": ["CAP_KILL"],
            "inheritable": ["CAP_CHOWN"],
            "ambient": ["CAP_CHOWN"],
        },
        "noNewPrivileges": True,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": (1 << 64) - 1}],
        "oomScoreAdj": -999,
        "selinuxLabel": "system_u:system_r:container_t:s0:c1,c2",
        "apparmorProfile": "cri-containerd.apparmor.d",
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "h",
    "domainname": "d",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/data", "type": "bind", "source": "/node/data", "options": ["rbind", "ro"]},
    ],
    "annotations": {"k": "v"},
    "linux": {
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
        "namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/1/ns/net"}],
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0}],
        "cgroupsPath": "/pod/c",
        "sysctl": {"net.core.somaxconn": "1024"},
        "mountLabel": "label",
    },
}


def parsed(spec: Any) -> Any:
    return parse_spec(json.dumps(spec).encode(), file="spec.dump")


def test_every_field() -> None:
    spec = parsed(FULL)
    assert (spec.args, spec.env, spec.cwd, spec.terminal) == (("a", "b"), ("A=1", "B="), "/work", True)
    assert (spec.uid, spec.gid, spec.additional_gids, spec.umask) == (1000, 2000, (3, 4), 0o22)
    kill, chown = frozenset({"CAP_KILL"}), frozenset({"CAP_CHOWN"})
    assert spec.capabilities == Capabilities(kill | chown, kill, kill, chown, chown)
    assert spec.no_new_privileges
    assert spec.rlimits == (Rlimit("RLIMIT_NOFILE", 10, (1 << 64) - 1),)
    assert spec.oom_score_adj == -999
    assert spec.selinux_label.startswith("system_u")
    assert spec.apparmor_profile == "cri-containerd.apparmor.d"
    assert spec.seccomp
    assert spec.mounts == (
        Mount("/proc", "proc", "proc", ()),
        Mount("/data", "bind", "/node/data", ("rbind", "ro")),
    )
    assert spec.namespaces == (Namespace("pid", ""), Namespace("network", "/proc/1/ns/net"))
    assert (spec.masked_paths, spec.readonly_paths) == (("/proc/kcore",), ("/proc/sys",))
    assert (spec.root_path, spec.root_readonly, spec.hostname, spec.domainname) == ("rootfs", True, "h", "d")
    assert spec.devices == (Device("/dev/fuse", "c", 10, 229, 438, 0, 0),)
    assert (spec.cgroups_path, spec.mount_label) == ("/pod/c", "label")
    assert (spec.annotations, spec.sysctl) == ({"k": "v"}, {"net.core.somaxconn": "1024"})


@pytest.mark.parametrize("document", [{}, {"process": None, "linux": None, "mounts": None, "annotations": None}])
def test_everything_may_be_missing_or_null_as_in_go(document: dict[str, Any]) -> None:
    spec = parsed(document)
    assert (spec.args, spec.mounts, spec.annotations, spec.seccomp) == ((), (), {}, False)
    assert (spec.uid, spec.umask, spec.oom_score_adj) == (0, None, None)
    assert spec.capabilities == Capabilities(*[frozenset()] * 5)


PATHS = [
    "process", "process.terminal", "process.user", "process.user.uid", "process.user.gid",
    "process.user.additionalGids", "process.user.additionalGids.0", "process.user.umask", "process.args",
    "process.args.1", "process.env", "process.env.0", "process.cwd", "process.capabilities",
    "process.capabilities.bounding", "process.capabilities.effective.0", "process.capabilities.permitted",
    "process.capabilities.inheritable", "process.capabilities.ambient", "process.noNewPrivileges", "process.rlimits",
    "process.rlimits.0", "process.rlimits.0.type", "process.rlimits.0.soft", "process.rlimits.0.hard",
    "process.oomScoreAdj", "process.selinuxLabel", "process.apparmorProfile", "root", "root.path", "root.readonly",
    "hostname", "domainname", "mounts", "mounts.1", "mounts.1.destination", "mounts.1.type", "mounts.1.source",
    "mounts.1.options", "mounts.1.options.1", "annotations", "annotations.k", "linux", "linux.namespaces",
    "linux.namespaces.1", "linux.namespaces.1.type", "linux.namespaces.1.path", "linux.maskedPaths",
    "linux.maskedPaths.0", "linux.readonlyPaths", "linux.devices", "linux.devices.0", "linux.devices.0.path",
    "linux.devices.0.type", "linux.devices.0.major", "linux.devices.0.fileMode", "linux.cgroupsPath", "linux.sysctl",
    "linux.mountLabel",
]  # fmt: skip


def spoiled(path: str, value: Any) -> tuple[Any, Any]:
    """FULL with ``value`` at ``path``, and what was there."""
    document = copy.deepcopy(FULL)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    target: Any = document
    for part in parents:
        target = target[part]
    before = target[last]
    target[last] = value
    return document, before


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", ["text", 5, True, 1.5, [[]], {"a": []}, "a\0b", "\ud800", -5000, 1 << 70], ids=repr)
def test_field_of_a_wrong_type_is_named(path: str, value: Any, refused: Refused) -> None:
    document, before = spoiled(path, value)
    same_type = type(value) is type(before) and value not in ("a\0b", "\ud800", -5000, 1 << 70, [[]], {"a": []})
    if same_type:
        parsed(document)
        return
    if value == {"a": []} and isinstance(before, dict) and path not in ("annotations", "linux.sysctl"):
        parsed(document)  # an unknown key in an object is of no concern
        return
    field = path.split(".")[-1]
    with refused("MetadataMalformed", "spec.dump", field if not field.isdigit() else f"[{field}]"):
        parsed(document)


def test_numbers_out_of_range_are_named(refused: Refused) -> None:
    for path, value in (
        ("process.user.uid", 1 << 32),
        ("process.user.gid", 1 << 32),
        ("process.oomScoreAdj", 1001),
        ("process.rlimits.0.hard", 1 << 64),
        ("process.user.umask", 0o10000),
    ):
        with refused("MetadataMalformed", path.split(".")[-1], "is not between"):
            parsed(spoiled(path, value)[0])


def test_too_many_entries_are_refused(monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr("shared.json_object.ITEMS_MAX", 3)
    with refused("MetadataMalformed", "process.args", "more than 3"):
        parsed({"process": {"args": ["a"] * 4}})
    with refused("MetadataMalformed", "annotations", "more than 3"):
        parsed({"annotations": dict.fromkeys("abcd", "")})


def test_too_long_text_is_refused(refused: Refused) -> None:
    with refused("MetadataMalformed", "process.cwd", "too long"):
        parsed({"process": {"cwd": "/" + "x" * (256 << 10)}})


def test_errors_name_the_file_they_were_given(refused: Refused) -> None:
    with refused("MetadataMalformed", "config.json of the container"):
        parse_spec(b"[]", file="config.json of the container")


def test_huge_document_is_refused(refused: Refused) -> None:
    with refused("MetadataMalformed", "spec.dump", "more than"):
        parse_spec(b" " * (5 << 20), file="spec.dump")
