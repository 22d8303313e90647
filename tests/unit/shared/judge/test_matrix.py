"""No false refusal: whatever a pod may set, a checkpoint of it restores in the same pod; and every single tightening
of the pod is refused, every loosening that a restore need not bring is not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from shared.errors import Refused
from shared.judge import PodIdentity, check_dump, check_settings
from shared.judge.mounts import check_mounts
from tests.support.pods import Security, dump, spec

CAPABILITIES: tuple[dict[str, Any], ...] = (
    {},
    {"drop": ("ALL",)},
    {"drop": ("ALL",), "add": ("CAP_NET_BIND_SERVICE",)},
    {"drop": ("CAP_NET_RAW", "CAP_SETUID", "CAP_SETGID")},
    {"add": ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE")},
)
FLAGS = ("no_new_privileges", "seccomp", "read_only_root", "share_processes", "host_network")


def combinations() -> Iterator[Security]:
    people: tuple[dict[str, Any], ...] = (
        {},
        {"uid": 1000, "gid": 1000},
        {"uid": 1000, "gid": 0},
        {"uid": 65534, "gid": 65534, "groups": (2000, 3000)},
    )
    for who, capabilities, *flags in itertools.product(people, CAPABILITIES, *[(False, True)] * len(FLAGS)):
        yield Security(**who, **capabilities, **dict(zip(FLAGS, flags, strict=True)))
    yield Security(privileged=True)
    yield Security(privileged=True, host_network=True, tty=True)
    yield Security(tty=True, data_read_only=True, groups=(2000,))


COMBINATIONS = tuple(combinations())


def restore(dumped: Security, asked: Security, identity: PodIdentity | None = None) -> None:
    """Every check of a restore, in the order nri_plugin/restore/prepare.py calls them."""
    theirs, ours = spec(dumped), spec(asked)
    check_mounts(theirs.mounts, ours.mounts)
    check_settings(theirs, ours, identity or PodIdentity())
    check_dump(dump(dumped), theirs, ours, identity or PodIdentity())


@pytest.mark.parametrize("tens", range(-(-len(COMBINATIONS) // 50)))
def test_checkpoint_restores_in_the_pod_it_was_taken_from(tens: int) -> None:
    for security in COMBINATIONS[tens * 50 : tens * 50 + 50]:
        restore(security, security)


def asked_with(security: Security, field: str) -> Security:
    changes: dict[str, Any] = {field: True}
    return replace(security, **changes)


TIGHTENINGS = {"no_new_privileges": "NoNewPrivilegesLost", "seccomp": "SeccompLost"}


@pytest.mark.parametrize("field", TIGHTENINGS)
def test_each_tightening_is_refused(field: str) -> None:
    for security in COMBINATIONS[::7]:
        if getattr(security, field) or security.privileged:
            continue
        with pytest.raises(Refused) as refusal:
            restore(security, asked_with(security, field))
        # An unprivileged user's capabilities go with no_new_privs, but the dump still says which it was.
        assert refusal.value.reason in {TIGHTENINGS[field], "CapabilitiesExceed"}, security


@pytest.mark.parametrize("dropped", ["CAP_NET_RAW", "CAP_CHOWN", "CAP_MKNOD", "ALL"])
def test_each_dropped_capability_is_refused(dropped: str) -> None:
    for security in COMBINATIONS[::7]:
        if security.drop or security.privileged:
            continue
        with pytest.raises(Refused) as refusal:
            restore(security, replace(security, drop=(dropped,)))
        assert refusal.value.reason == "CapabilitiesExceed", security
        if dropped != "ALL":
            assert dropped in refusal.value.sentence


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"uid": 4242}, "UserDiffers"),
        ({"gid": 4242}, "UserDiffers"),
        ({"tty": True}, "TtyDiffers"),
        ({"privileged": True}, "PrivilegedDiffers"),
    ],
)
def test_each_difference_that_a_restore_cannot_make_is_refused(change: dict[str, Any], reason: str) -> None:
    for security in COMBINATIONS[::7]:
        if any(getattr(security, field) == value for field, value in change.items()):
            continue
        with pytest.raises(Refused) as refusal:
            restore(security, replace(security, **change))
        assert refusal.value.reason == reason, security


def test_privileged_checkpoint_in_an_ordinary_pod_is_refused() -> None:
    with pytest.raises(Refused) as refusal:
        restore(Security(privileged=True), Security())
    assert refusal.value.reason == "PrivilegedDiffers"


def test_group_that_the_pod_no_longer_has_is_refused_where_it_could_not_be_joined() -> None:
    dumped = Security(uid=1000, gid=1000, groups=(2000,), drop=("ALL",), no_new_privileges=True)
    with pytest.raises(Refused) as refusal:
        restore(dumped, replace(dumped, groups=()))
    assert refusal.value.reason == "IdentityExceeds"
    assert "group 2000" in refusal.value.sentence
    # Root with CAP_SETGID may join any group by itself.
    restore(Security(groups=(2000,)), Security())


def test_groups_that_the_runtime_looked_up_in_the_base_image_are_no_difference() -> None:
    """An archive image has no /etc/group: the live spec says group 0 alone, where the base image had others."""
    dumped = Security(groups=(1, 2, 3, 10), drop=("ALL",))
    asked = replace(dumped, groups=())
    restore(dumped, asked, PodIdentity(group_fixed=False, groups_fixed=False))
    with pytest.raises(Refused) as refusal:
        restore(dumped, asked, PodIdentity(group_fixed=False, groups_fixed=True))
    assert refusal.value.reason == "IdentityExceeds"


def test_group_of_a_user_that_the_runtime_looked_up_in_the_base_image_is_no_difference() -> None:
    dumped = Security(uid=1000, gid=1000, drop=("ALL",), no_new_privileges=True)
    asked = replace(dumped, gid=0)
    restore(dumped, asked, PodIdentity(group_fixed=False, groups_fixed=False))
    with pytest.raises(Refused) as refusal:
        restore(dumped, asked, PodIdentity(group_fixed=True, groups_fixed=False))
    assert refusal.value.reason == "UserDiffers"
    with pytest.raises(Refused) as refusal:
        restore(dumped, replace(dumped, gid=50), PodIdentity(group_fixed=False))
    assert refusal.value.reason == "UserDiffers"


@pytest.mark.parametrize(
    ("dumped", "asked"),
    [
        (Security(no_new_privileges=True), Security()),
        (Security(seccomp=True), Security()),
        (Security(drop=("ALL",)), Security()),
        (Security(), Security(add=("CAP_SYS_PTRACE",))),
        (Security(read_only_root=True, data_read_only=True), Security()),
        (Security(uid=1000, gid=1000), Security(uid=1000, gid=1000, groups=(2000,))),
    ],
)
def test_pod_that_allows_more_than_was_dumped_restores(dumped: Security, asked: Security) -> None:
    restore(dumped, asked)
