"""What a pod's author sees when volumes differ: every path named, in the words of the pod's manifest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.errors import Refused
from shared.judge.mounts import check_mounts
from shared.spec import Mount
from tests.support.pods import TOKEN, Security, spec

OURS = spec(Security()).mounts


def bind(path: str, *options: str, kind: str = "bind") -> Mount:
    return Mount(path, kind, f"/node{path}", ("rbind", *options))


def refusal(dumped: list[Mount], asked: list[Mount]) -> Refused:
    with pytest.raises(Refused) as caught:
        check_mounts([*OURS, *dumped], [*OURS, *asked])
    return caught.value


def test_same_mounts_pass_without_a_warning() -> None:
    assert check_mounts(OURS, OURS) == ()


def test_every_missing_mount_is_named() -> None:
    error = refusal([bind("/cache"), bind("/a"), bind("/b", "ro")], [bind("/b", "ro")])
    assert error.reason == "MountMissing"
    assert "the mounts /a, /cache, which the pod does not declare" in error.sentence
    assert "the mount /a," in refusal([bind("/a")], []).sentence


def test_every_mount_too_many_is_named() -> None:
    error = refusal([], [bind("/b"), bind("/a", "ro")])
    assert error.reason == "MountUnexpected"
    assert "the mounts /a, /b, which the checkpointed container did not have" in error.sentence


def test_other_access_is_put_right_instead() -> None:
    assert check_mounts([*OURS, bind("/a"), bind("/b", "rw"), bind("/c", "ro")], [
        *OURS, bind("/a", "ro"), bind("/b", "rro"), bind("/c", "rw"),
    ]) == ()  # fmt: skip


def test_kind_of_a_mount_may_be_told_by_its_options_alone() -> None:
    assert refusal([bind("/a", kind="none")], []).reason == "MountMissing"
    assert check_mounts([*OURS, bind("/a", kind="none")], [*OURS, bind("/a")]) == ()


@pytest.mark.parametrize(("theirs", "ours"), [("/var/run/x", "/run/x"), ("/run/x", "/var/run/x"), ("/x/", "/x")])
def test_one_place_has_many_spellings(theirs: str, ours: str) -> None:
    assert check_mounts([*OURS, bind(theirs)], [*OURS, bind(ours)]) == ()


def test_what_the_kubelet_adds_by_itself_is_only_warned_about() -> None:
    without = [mount for mount in OURS if mount.destination not in {TOKEN, "/dev/termination-log"}]
    assert check_mounts(without, OURS) == (
        "/dev/termination-log is not in the checkpoint and will be missing in the restored container",
        f"{TOKEN} is not in the checkpoint and will be missing in the restored container",
    )
    with pytest.raises(Refused) as caught:
        check_mounts(OURS, without)
    assert caught.value.reason == "MountMissing"


@pytest.mark.parametrize("dumped", [False, True])
def test_privileged_is_told_by_the_access_to_sys(dumped: bool) -> None:
    with pytest.raises(Refused) as caught:
        check_mounts(spec(Security(privileged=dumped)).mounts, spec(Security(privileged=not dumped)).mounts)
    assert caught.value.reason == "PrivilegedDiffers"
    assert f"set privileged: {str(dumped).lower()}" in caught.value.sentence


def test_container_without_a_sys_tells_nothing() -> None:
    bare = [mount for mount in OURS if mount.destination != "/sys"]
    assert check_mounts(bare, OURS) == ()
    assert check_mounts(OURS, bare) == ()


def test_only_binds_are_the_pods() -> None:
    other = replace(next(mount for mount in OURS if mount.type == "mqueue"), destination="/mq")
    assert check_mounts([*OURS, other], OURS) == ()
