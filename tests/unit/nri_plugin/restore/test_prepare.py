"""A preparation that comes to no good end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest

from nri_plugin.config import Config
from nri_plugin.restore.cache import ImageCache
from nri_plugin.restore.node import Node
from nri_plugin.restore.plan import Plan
from nri_plugin.restore.prepare import prepare
from nri_plugin.restore.request import RestoreRequest
from shared.errors import RestoreError

DIGEST = "sha256:" + "1" * 64


@pytest.mark.parametrize(
    ("on_failure", "native", "status"),
    [("fail", False, "refused RuntimeAway: "), ("start", False, "plain\n"), ("start", True, "refused RuntimeAway: ")],
)
def test_runtime_that_goes_away_leaves_the_decision_made(
    config: Config,
    planned: Callable[..., Plan],
    request_for: Callable[..., RestoreRequest],
    on_failure: str,
    native: bool,
    status: str,
) -> None:
    settings = {"on_failure": on_failure, "native": native, "checkpoint": "registry.example/checkpoints/web:1"}
    plan = planned("a", **settings)
    plan.write("image", DIGEST)
    node = Node.of(config)
    node.views.path(DIGEST).mkdir(parents=True)
    answers: list[RestoreError | None] = []
    cache = ImageCache(node.containerd, config.paths.state, config.cache)
    report = prepare(node, cache, request_for("a", **settings), plan, answers.append, threading.Event())
    assert (plan.status or "").startswith(status)
    assert [error.reason if error else None for error in answers] == [None if status == "plain\n" else "RuntimeAway"]
    assert any(warning.startswith("the view of the checkpoint image stays: ") for warning in report.warnings)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("by_default", [False, True])
def test_image_that_cannot_be_looked_at_holds_up_only_who_asked_for_the_handler(
    config: Config,
    planned: Callable[..., Plan],
    request_for: Callable[..., RestoreRequest],
    monkeypatch: pytest.MonkeyPatch,
    by_default: bool,
    broken: bool,
) -> None:
    node, plan = Node.of(config), planned("a", by_default=by_default)
    answers: list[RestoreError | None] = []
    cache = ImageCache(node.containerd, config.paths.state, config.cache)
    if broken:
        monkeypatch.setattr(node.containerd, "image_target", None)  # a defect: TypeError
    with pytest.raises(TypeError) if broken else contextlib.nullcontext():
        prepare(node, cache, request_for("a", by_default=by_default), plan, answers.append, threading.Event())
    reason = "Internal" if broken else "RuntimeAway"
    assert (plan.status or "").startswith(f"{'undecided' if by_default else 'refused'} {reason}: ")
    assert [error.reason if error else None for error in answers] == [None if by_default else reason]
