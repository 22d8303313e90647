from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nri_plugin.config import Config, Paths, Runtime
from nri_plugin.restore.plan import Plan
from nri_plugin.restore.request import RestoreRequest


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Everything in the test's own folder; no runtime listens."""
    paths = Paths(tmp_path / "plans", tmp_path / "state", tmp_path / "logs")
    return Config(runtime=Runtime(socket=tmp_path / "no-runtime.sock"), paths=paths)


@pytest.fixture
def request_for() -> Callable[..., RestoreRequest]:
    """A request for the container whose id is one letter, 64 times."""

    def make(letter: str = "a", **changes: Any) -> RestoreRequest:
        container_id = letter * 64
        values: dict[str, Any] = {
            "container_id": container_id,
            "container_name": "main",
            "attempt": 0,
            "pod_id": "p" * 64,
            "pod_name": "web",
            "pod_namespace": "default",
            "pod_uid": "uid",
            "image": "registry.example/web:1",
            "checkpoint": None,
            "native": False,
            "args": (),
            "mounts": (),
            "cgroups_path": f"/kubepods/pod1/{container_id}",
            "on_failure": "fail",
            "on_restart": "restore",
            "tcp": "close",
            "criu": (),
        }
        return RestoreRequest.from_json({**values, **changes})

    return make


@pytest.fixture
def planned(config: Config, request_for: Callable[..., RestoreRequest]) -> Callable[..., Plan]:
    """A plan as the session makes it."""

    def make(letter: str = "a", **changes: Any) -> Plan:
        plan = Plan(config.paths.plans, letter * 64)
        plan.create(request_for(letter, **changes))
        return plan

    return make
