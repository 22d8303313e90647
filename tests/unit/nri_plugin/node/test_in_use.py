"""Whether something on the node was made through restore-runc."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nri_plugin.config import Config, Runtime
from nri_plugin.node import in_use
from shared.errors import Refused


def config(state: Path) -> Config:
    return replace(Config(), runtime=Runtime(socket=state / "containerd.sock"))


def task(state: Path, number: int, runtime: str) -> None:
    folder = state / in_use.TASKS / "k8s.io" / str(number)
    folder.mkdir(parents=True)
    (folder / "runtime").write_text(runtime)


def test_containers_made_through_us_are_counted_and_refuse(tmp_path: Path) -> None:
    task(tmp_path, 1, "/usr/lib/nri-restore/restore-runc")
    task(tmp_path, 2, "/opt/nri-restore/current/restore-runc")
    task(tmp_path, 3, "runc")
    task(tmp_path, 4, "")
    with pytest.raises(Refused, match="2 containers and pod sandboxes on this node were made through restore-runc"):
        in_use.refuse_in_use(config(tmp_path))


def test_other_containers_do_not_refuse(tmp_path: Path) -> None:
    task(tmp_path, 1, "/usr/bin/runc")
    in_use.refuse_in_use(config(tmp_path))


def test_conmon_of_crio_tells_its_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [["conmon", "-r", "/usr/lib/nri-restore/restore-runc"], ["conmon", "--runtime=/usr/bin/crun"]]
    monkeypatch.setattr(in_use, "processes", lambda name: lines if name == "conmon" else [])
    assert in_use.made_through_us(config(tmp_path)) == 1
