"""Verdicts: what is remembered, and that everything a verdict depends on is part of what it is remembered by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

import pytest

from nri_plugin.restore import verify
from nri_plugin.restore.verify import UNREAD, VERDICTS_MAX, Verdict, Verdicts, relevant
from shared.errors import Refused
from shared.judge import Judgement, NodeSide, PodIdentity
from shared.judge import judge as really_judge
from shared.spec import Capabilities, Device, Mount, Namespace, Rlimit, RuntimeSpec, SeccompProfile, SeccompRule
from shared.special_files import SpecialFile
from tests.support.pods import Security, dump, spec

SECURITY = Security(seccomp=True, read_only_root=True)
LIVE = spec(SECURITY)
DUMP = dump(SECURITY)
RULE = SeccompRule(("read",), "SCMP_ACT_ALLOW", conditional=False)
CHANGES: dict[str, Any] = {
    "terminal": True,
    "uid": 1,
    "gid": 1,
    "additional_gids": (7,),
    "capabilities": Capabilities(*[frozenset({"CAP_KILL"})] * 5),
    "no_new_privileges": True,
    "rlimits": (Rlimit("RLIMIT_NOFILE", 1, 2),),
    "oom_score_adj": 5,
    "selinux_label": "label",
    "apparmor_profile": "profile",
    "seccomp": False,
    "mounts": LIVE.mounts[1:],
    "namespaces": LIVE.namespaces[1:],
    "masked_paths": ("/proc/x",),
    "readonly_paths": ("/proc/x",),
    "root_readonly": False,
    "devices": (Device("/dev/x", "c", 1, 2, None, None, None),),
    "sysctl": {"kernel.x": "1"},
    "seccomp_profile": SeccompProfile("SCMP_ACT_ERRNO", (), (RULE,)),
    "rootfs_propagation": "rshared",
    "mount_label": "label",
}
NODE = NodeSide("6.18.0", "rw,nsdelegate")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry a time that a dump is really judged."""
    calls: list[object] = []

    def check(*arguments: Any, **named: Any) -> Judgement:
        calls.append(arguments)
        return really_judge(*arguments, **named)

    monkeypatch.setattr(verify, "judge", check)
    return calls


def judge(
    verdicts: Verdicts,
    live: RuntimeSpec = LIVE,
    *,
    digest: str = "sha256:1",
    identity: PodIdentity | None = None,
    waived: frozenset[str] = frozenset(),
    special: tuple[SpecialFile, ...] = (),
    node: NodeSide = NODE,
) -> Verdict:
    return verdicts.verify(digest, DUMP, LIVE, live, identity or PodIdentity(), special, waived, node)


def test_replicas_are_verified_once(counted: list[object]) -> None:
    verdicts = Verdicts()
    for name in ("one", "two"):
        mounts = tuple(replace(m, source=f"/pods/{name}") if m.type == "bind" else m for m in LIVE.mounts)
        namespaces = tuple(replace(each, path=each.path and f"/proc/{name}/ns") for each in LIVE.namespaces)
        judge(verdicts, replace(LIVE, mounts=mounts, namespaces=namespaces, hostname=name, cgroups_path=f"/{name}"))
    assert len(counted) == 1


def test_replicas_that_start_at_once_are_verified_once(counted: list[object]) -> None:
    verdicts = Verdicts()
    with ThreadPoolExecutor(8) as threads:
        assert len({each.key for each in threads.map(lambda _: judge(verdicts), range(16))}) == 1
    assert len(counted) == 1


def test_every_field_of_a_spec_is_read_or_known_not_to_be() -> None:
    assert {*CHANGES} | UNREAD == {each.name for each in fields(RuntimeSpec)}
    assert not {*CHANGES} & UNREAD


@pytest.mark.parametrize("name", CHANGES)
def test_each_field_of_the_live_spec_asks_for_another_verdict(name: str) -> None:
    changed = replace(LIVE, **{name: CHANGES[name]})
    assert getattr(changed, name) != getattr(LIVE, name)
    assert relevant(changed) != relevant(LIVE)


@pytest.mark.parametrize("name", [each.name for each in fields(Capabilities)])
def test_each_set_of_capabilities_asks_for_another_verdict(name: str) -> None:
    sets = replace(LIVE.capabilities, **{name: frozenset({"CAP_BPF"})})
    assert relevant(replace(LIVE, capabilities=sets)) != relevant(LIVE)


@pytest.mark.parametrize("change", [{"destination": "/x"}, {"type": "x"}, {"options": ("x",)}])
def test_each_part_of_a_mount_asks_for_another_verdict(change: dict[str, Any]) -> None:
    mounts = (*LIVE.mounts[:-1], replace(LIVE.mounts[-1], **change))
    assert relevant(replace(LIVE, mounts=mounts)) != relevant(LIVE)


def test_source_of_a_mount_that_is_no_bind_mount_asks_for_another_verdict() -> None:
    """CRIU mounts it: the name of a tmpfs, a device."""
    (proc,) = [each for each in LIVE.mounts if each.type == "proc"]
    (hosts,) = [each for each in LIVE.mounts if each.destination == "/etc/hosts"]

    def other(mount: Mount) -> RuntimeSpec:
        renamed = replace(mount, source="/other")
        return replace(LIVE, mounts=tuple(renamed if each is mount else each for each in LIVE.mounts))

    assert relevant(other(proc)) != relevant(LIVE)
    assert relevant(other(hosts)) == relevant(LIVE)


def test_namespace_that_becomes_the_nodes_asks_for_another_verdict() -> None:
    def network(namespace: Namespace) -> bool:
        return namespace.type == "network"

    assert relevant(LIVE, shared=network) != relevant(LIVE, shared=lambda _: False)
    unshared = tuple(replace(each, path="") for each in LIVE.namespaces)
    assert relevant(replace(LIVE, namespaces=unshared)) != relevant(LIVE)
    renamed = tuple(replace(each, type="time") for each in LIVE.namespaces)
    assert relevant(replace(LIVE, namespaces=renamed)) != relevant(LIVE)


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "sha256:2"},
        {"identity": PodIdentity(group_fixed=False)},
        {"identity": PodIdentity(groups_fixed=False)},
        {"waived": frozenset({"SeccompLost"})},
        {"live": replace(LIVE, oom_score_adj=1)},
        {"node": replace(NODE, kernel="5.13.0")},
        {"node": replace(NODE, cgroup2_options="rw")},
    ],
)
def test_each_input_asks_for_another_verdict_and_other_images(counted: list[object], change: dict[str, Any]) -> None:
    verdicts = Verdicts()
    first = judge(verdicts)
    assert judge(verdicts, **change).key != first.key
    assert len(counted) == 2
    judge(verdicts)
    judge(verdicts, **change)
    assert len(counted) == 2


def test_refusal_is_found_again_each_time(counted: list[object]) -> None:
    verdicts = Verdicts()
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            judge(verdicts, replace(LIVE, no_new_privileges=True))
        assert caught.value.reason == "NoNewPrivilegesLost"
    with pytest.raises(Refused) as caught:
        judge(verdicts, replace(LIVE, terminal=True))
    assert caught.value.reason == "TtyDiffers"
    assert len(counted) == 3


def test_what_is_waived_is_said_each_time(counted: list[object]) -> None:
    verdicts, strict = Verdicts(), replace(LIVE, no_new_privileges=True)
    waived = frozenset({"NoNewPrivilegesLost"})
    first = judge(verdicts, strict, waived=waived)
    assert {each.reason for each in first.judgement.waived} == waived
    assert judge(verdicts, strict, waived=waived) == first
    assert len(counted) == 1
    with pytest.raises(Refused):
        judge(verdicts, strict)


def test_only_the_latest_are_remembered(counted: list[object]) -> None:
    verdicts = Verdicts()
    judge(verdicts, digest="kept")
    for number in range(VERDICTS_MAX):
        judge(verdicts, digest=str(number))
        judge(verdicts, digest="kept")
    assert len(counted) == VERDICTS_MAX + 1
    judge(verdicts, digest="0")
    assert len(counted) == VERDICTS_MAX + 2


class Watched:
    """A spec whose unread parts cannot be read."""

    def __init__(self, of: Any, forbidden: frozenset[str]) -> None:
        self.__dict__["of"], self.__dict__["forbidden"] = of, forbidden

    def __getattr__(self, name: str) -> Any:
        assert name not in self.forbidden, f"a rule reads {name}"
        return getattr(self.of, name)


def watched(live: RuntimeSpec) -> Any:
    mounts = tuple(Watched(each, frozenset({"source"})) if each.type == "bind" else each for each in live.mounts)
    return Watched(dataclasses.replace(live, mounts=mounts), UNREAD)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "security",
    [
        Security(),
        SECURITY,
        Security(uid=1000, gid=1000, drop=("ALL",), no_new_privileges=True),
        Security(privileged=True, tty=True),
        Security(host_network=True, share_processes=True, add=("CAP_SYS_ADMIN",)),
    ],
)
def test_no_rule_reads_what_is_left_out(security: Security) -> None:
    live, made = watched(spec(security)), dump(security)
    really_judge(made, spec(security), live, PodIdentity(), node=NODE)


@pytest.mark.parametrize("field", sorted(UNREAD))
def test_a_rule_that_read_it_would_be_found(field: str) -> None:
    with pytest.raises(AssertionError, match=f"a rule reads {field}"):
        getattr(watched(LIVE), field)


def test_source_of_a_mount_would_be_found_too() -> None:
    read: Callable[[Mount], str] = lambda mount: mount.source  # noqa: E731
    with pytest.raises(AssertionError, match="a rule reads source"):
        read(next(each for each in watched(LIVE).mounts if each.type == "bind"))
