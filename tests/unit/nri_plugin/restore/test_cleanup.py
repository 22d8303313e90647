"""Undoing restores that came to no good end, and deleting what may hold mounts."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nri_plugin.restore import cleanup, mounting
from nri_plugin.restore.plan import Plan
from shared.errors import Unavailable

NO_SUCH_FLAG = 1 << 31
"""MS_NOUSER, which mount(2) takes from nobody (fs/namespace.c)."""


@pytest.fixture
def undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Plans that the program was called for."""
    program, log = tmp_path / "undo", tmp_path / "undone"
    program.write_text(f'#!/bin/sh\necho "$1" >>{log}\n')
    program.chmod(0o755)
    monkeypatch.setattr(cleanup, "UNDO_RESTORE", program)
    return lambda: log.read_text().splitlines() if log.exists() else []


def test_program_is_there() -> None:
    assert os.access(cleanup.UNDO_RESTORE, os.X_OK)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((), False),
        (("restoring",), True),
        (("restoring", "restored"), False),
        (("restoring", "failed"), False),
    ],
)
def test_only_what_began_and_did_not_end_is_undone(
    planned: Callable[..., Plan], undone: Callable[[], list[str]], files: tuple[str, ...], expected: bool
) -> None:
    plan = planned()
    for name in files:
        plan.write(name, "1")
    cleanup.undo_if_interrupted(plan)
    assert undone() == ([str(plan.path)] if expected else [])


def test_restore_under_way_is_left_alone_or_waited_for(
    planned: Callable[..., Plan], undone: Callable[[], list[str]]
) -> None:
    plan = planned()
    plan.write("restoring", "1")
    held = os.open(plan.path / "restoring", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    cleanup.undo_if_interrupted(plan)
    assert undone() == []
    threading.Timer(0.1, os.close, [held]).start()
    began = time.monotonic()
    cleanup.undo_if_interrupted(plan, wait_s=20)
    assert undone() == [str(plan.path)]
    assert time.monotonic() - began < 15


def test_program_that_cannot_be_run_is_logged(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plan = planned()
    plan.write("restoring", "1")
    monkeypatch.setenv("PATH", "/nowhere")
    cleanup.undo_if_interrupted(plan)
    assert "undoing the restore of aaaaaaaaaaaa" in caplog.text


def test_deleting_a_plan_twice(planned: Callable[..., Plan]) -> None:
    plan = planned()
    (plan.path / "work").mkdir()
    cleanup.delete(plan)
    cleanup.delete(plan)
    assert not plan.path.exists()


def test_nothing_is_deleted_below_a_mount_that_does_not_go(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned()
    (plan.path / "mounted").mkdir()
    (plan.path / "mounted/precious").touch()
    asked: list[Path] = []
    monkeypatch.setattr(mounting, "mounts_below", lambda directory: [directory / "mounted"])
    monkeypatch.setattr(mounting, "unmount", lambda target: asked.append(target))
    with pytest.raises(Unavailable) as refused:
        cleanup.delete(plan)
    assert refused.value.reason == "StillMounted"
    assert asked == [plan.path / "mounted"]
    assert (plan.path / "mounted/precious").exists()
    assert (plan.path / "request").exists()


def test_mount_points_are_found_deepest_first_and_names_unescaped(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "22 1 0:21 / /proc rw - proc proc rw",
        "30 1 0:30 / /run/plans rw - tmpfs tmpfs rw",
        r"31 30 0:31 / /run/plans/a\040b rw - tmpfs tmpfs rw",
        r"32 31 0:32 / /run/plans/a\040b/c rw shared:1 - tmpfs tmpfs rw",
        "33 1 0:33 / /run/plans-other rw - tmpfs tmpfs rw",
        "34 1 0:34 / /mnt/写真\x85\u2028 rw - tmpfs tmpfs rw",
        r"35 30 0:35 / /run/plans/\134é rw - tmpfs tmpfs rw",
    ]
    monkeypatch.setattr(Path, "read_bytes", lambda self: "".join(f"{line}\n" for line in lines).encode())
    found = [str(point) for point in mounting.mounts_below(Path("/run/plans"))]
    assert found == ["/run/plans/a b/c", "/run/plans/\\é", "/run/plans/a b", "/run/plans"]


def test_bind_that_cannot_be_made_read_only_is_not_left(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    with pytest.raises(Unavailable) as refused:
        mounting.bind(source, target, NO_SUCH_FLAG)
    assert refused.value.reason == "MountFailed"
    assert not mounting.mounts_below(target)
