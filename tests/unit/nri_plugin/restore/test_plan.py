"""The plan directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nri_plugin.config import Config
from nri_plugin.restore.plan import Plan, cgroup_of, one_line, plans_in
from nri_plugin.restore.request import RestoreRequest
from shared.errors import Refused, Unavailable


def test_request_is_read_back(planned: Callable[..., Plan], request_for: Callable[..., RestoreRequest]) -> None:
    mounts = [{"destination": "/d", "type": "bind", "source": "/s", "options": ["ro", "rbind"]}]
    plan = planned("a", mounts=mounts, args=["sh", "-c", "é"], criu=["file-locks"])
    assert plan.request() == request_for("a", mounts=mounts, args=["sh", "-c", "é"], criu=["file-locks"])
    assert plan.made_at > 0


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"args": 5}'])
def test_request_that_was_not_written_whole_is_none(planned: Callable[..., Plan], text: str) -> None:
    plan = planned()
    plan.write("request", text)
    assert plan.request() is None


def test_half_a_file_is_never_seen(planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned()
    plan.write("status", "ok\n")

    def fails(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(Unavailable) as failed:
        plan.write("status", "plain\n")
    assert failed.value.reason == "NodeStorageFailed"
    assert "No space left on device" in failed.value.sentence
    assert plan.status == "ok\n"


def test_link_in_place_of_the_new_file_is_not_followed(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned()
    (tmp_path / "precious").write_text("precious")
    (plan.path / ".status.new").symlink_to(tmp_path / "precious")
    with pytest.raises(Unavailable):
        plan.write("status", "ok\n")
    assert (tmp_path / "precious").read_text() == "precious"


def test_refusal_is_one_line_whatever_the_sentence_holds(planned: Callable[..., Plan]) -> None:
    plan = planned()
    plan.refuse(Refused("Reason", "a sentence\nwith \x1b[31m breaks\tand \0 zero"))
    assert plan.status == "refused Reason: a sentence\\nwith \\x1b[31m breaks\\tand \\x00 zero\n"
    assert one_line("\r\n") == ""


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-a", "a\n", "a" * 300])
def test_container_id_that_is_no_file_name(config: Config, name: str) -> None:
    with pytest.raises(Unavailable) as refused:
        Plan(config.paths.plans, name)
    assert refused.value.reason == "ContainerIdInvalid"


def test_only_plans_are_listed(config: Config, planned: Callable[..., Plan], tmp_path: Path) -> None:
    assert plans_in(tmp_path / "nowhere") == []
    plan = planned("a")
    (config.paths.plans / "views").mkdir()
    (config.paths.plans / "daemon.lock").touch()
    (config.paths.plans / ("b" * 64)).symlink_to(plan.path)
    assert [each.container_id for each in plans_in(config.paths.plans)] == ["a" * 64]


def test_lock_is_held_until_it_is_closed(planned: Callable[..., Plan]) -> None:
    plan = planned()
    held = plan.lock()
    other = os.open(plan.path / "lock", os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(held)
    fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(other)


def test_whether_the_restored_process_runs(planned: Callable[..., Plan]) -> None:
    plan = planned()
    assert not plan.runs
    plan.write("restored", str(os.getpid()))
    assert plan.runs
    plan.write("restored", "4194305")
    assert not plan.runs


ID = "a" * 64


@pytest.mark.parametrize(
    ("path", "group"),
    [
        (f"/kubepods/besteffort/pod1/{ID}", f"kubepods/besteffort/pod1/{ID}"),
        (f"/k8s.io/{ID}", f"k8s.io/{ID}"),
        (
            f"kubepods-besteffort-pod1.slice:cri-containerd:{ID}",
            f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-{ID}.scope",
        ),
        # Nothing that could hold more than this container.
        ("", ""),
        ("/", ""),
        ("/kubepods/besteffort/pod1", ""),
        (f"/kubepods/../{ID}", ""),
        (f"/kubepods\n/{ID}", ""),
        (f"/a:b:{ID}:c", f"a:b:{ID}:c"),
    ],
)
def test_containers_own_cgroup(request_for: Callable[..., RestoreRequest], path: str, group: str) -> None:
    assert cgroup_of(request_for("a", cgroups_path=path)) == group
