from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.support.kube_api import KubeApi
from tests.unit.kubectl_restore.verbs.conftest import Run


@pytest.fixture
def run(command: Run, monkeypatch: pytest.MonkeyPatch, kubeconfig: Path) -> Run:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    return partial(command, "status")


def test_refusal_is_explained(api: KubeApi, run: Run) -> None:
    pod = api.add_pod("web", "main", phase="Pending", runtimeClassName="nri-restore")
    api.add_event(pod, "Failed", "Error: NRI: TtyDiffers: set tty")
    status, out, _ = run("web")
    assert status == 0
    assert out.splitlines() == [
        "pod default/web on node node-1: Pending, not Ready, runtimeClass nri-restore",
        "CONTAINER   RESTORE   STATE     RESTARTS   CHECKPOINT",
        "main        refused   waiting   0          busybox:1",
        "main: TtyDiffers: set tty",
        "  what to do: set `tty` as it was",
        "  see docs/reasons.md",
    ]
    document = json.loads(run("web", "-o", "json")[1])
    assert yaml.safe_load(run("web", "-o", "yaml")[1]) == document
    assert document["events"][0]["failure"]["code"] == "TtyDiffers"


def test_events_that_may_not_be_read_are_left_out(api: KubeApi, run: Run) -> None:
    api.add_pod("web", "main")
    api.forbid("list", "events")
    status, out, _ = run("web")
    assert status == 0
    assert "runtimeClass none" in out
    assert run("other")[0] == 1


def test_what_is_over_and_what_is_going_on(api: KubeApi, run: Run) -> None:
    api.create("RuntimeClass", "gold", handler="nri-restore")
    pod = api.add_pod("web", "main", annotations={"nri-restore/checkpoint": "ck:1"}, runtimeClassName="gold")
    for _ in range(2):
        api.add_event(pod, "Failed", "Error: RuntimeSlow: it hangs", place="spec.containers{main}")
    assert run("web")[1].splitlines()[1:] == [
        "CONTAINER   RESTORE   STATE     RESTARTS   CHECKPOINT",
        "main        resumed   running   0          ck:1",
        "earlier, 2 times: RuntimeSlow: it hangs",
    ]
    slow = api.add_pod("slow", "main", phase="Pending", runtimeClassName="nri-restore")
    api.add_event(slow, "Created", "Created container: main", kind="Normal", place="spec.containers{main}")
    assert run("slow")[1].splitlines()[2:] == [
        "main        preparing   waiting   0          busybox:1",
        "main: the node is pulling or preparing the checkpoint; wait",
    ]


def test_text_of_a_pod_cannot_move_the_cursor(api: KubeApi, run: Run) -> None:
    pod = api.add_pod("web", "main", phase="Pending", runtimeClassName="nri-restore")
    api.add_event(pod, "Failed", "Error: TtyDiffers: \x1b[2Jset tty")
    assert "TtyDiffers: \\x1b[2Jset tty" in run("web")[1]
