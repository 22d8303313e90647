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
    pod = api.add_pod("web", "main", phase="Pending", runtimeClassName="nri-restore")
    api.add_event(pod, "Failed", "Error: NRI: TtyDiffers: set tty")
    assert run(monkeypatch, kubeconfig, "web") == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "pod default/web on node node-1: Pending, not Ready, runtimeClass nri-restore",
        "CONTAINER   RESTORE   STATE     RESTARTS   CHECKPOINT",
        "main        refused   waiting   0          busybox:1",
        "main: TtyDiffers: set tty",
        "  what to do: set `tty` as it was",
        "  see docs/reasons.md",
    ]
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


def test_what_is_over_and_what_is_going_on(
    api: KubeApi, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.create("RuntimeClass", "gold", handler="nri-restore")
    pod = api.add_pod("web", "main", annotations={"nri-restore/checkpoint": "ck:1"}, runtimeClassName="gold")
    for _ in range(2):
        api.add_event(pod, "Failed", "Error: RuntimeSlow: it hangs", place="spec.containers{main}")
    assert run(monkeypatch, kubeconfig, "web") == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "CONTAINER   RESTORE   STATE     RESTARTS   CHECKPOINT",
        "main        resumed   running   0          ck:1",
        "earlier, 2 times: RuntimeSlow: it hangs",
    ]
    slow = api.add_pod("slow", "main", phase="Pending", runtimeClassName="nri-restore")
    api.add_event(slow, "Created", "Created container: main", kind="Normal", place="spec.containers{main}")
    assert run(monkeypatch, kubeconfig, "slow") == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "main        preparing   waiting   0          busybox:1",
        "main: the node is pulling or preparing the checkpoint; wait",
    ]


def test_text_of_a_pod_cannot_move_the_cursor(
    api: KubeApi, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pod = api.add_pod("web", "main", phase="Pending", runtimeClassName="nri-restore")
    api.add_event(pod, "Failed", "Error: TtyDiffers: \x1b[2Jset tty")
    assert run(monkeypatch, kubeconfig, "web") == 0
    assert "TtyDiffers: \\x1b[2Jset tty" in capsys.readouterr().out
