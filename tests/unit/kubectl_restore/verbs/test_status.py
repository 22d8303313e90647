from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from kubectl_restore import cli
from tests.support.kube_api import KubeApi


def run(monkeypatch: pytest.MonkeyPatch, kubeconfig: Path, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["kubectl-restore", "status", *words, "--kubeconfig", str(kubeconfig)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_refusal_is_explained(
    api: KubeApi, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pod = api.add_pod("web", "main", runtimeClassName="nri-restore")
    api.add_event(pod, "Failed", "Error: NRI: TtyDiffers: set tty")
    assert run(monkeypatch, kubeconfig, "web") == 0
    out = capsys.readouterr().out
    assert "runtimeClass nri-restore" in out and "TtyDiffers: set tty (see docs/reasons.md)" in out
    assert run(monkeypatch, kubeconfig, "web", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert run(monkeypatch, kubeconfig, "web", "-o", "yaml") == 0
    assert yaml.safe_load(capsys.readouterr().out) == document
    assert document["events"][0]["failure"]["code"] == "TtyDiffers"


def test_events_that_may_not_be_read_are_left_out(
    api: KubeApi, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.add_pod("web", "main")
    api.forbid("list", "events")
    assert run(monkeypatch, kubeconfig, "web") == 0
    assert "runtimeClass none" in capsys.readouterr().out
    assert run(monkeypatch, kubeconfig, "other") == 1
