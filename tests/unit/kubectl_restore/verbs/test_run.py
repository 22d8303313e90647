from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubectl_restore import cli
from kubectl_restore.run import copy_pod
from tests.support.checkpoints import SyntheticDump, containerd, tar_of
from tests.support.inspected import kubelet_spec
from tests.support.kube_api import KubeApi
from tests.support.kube_memory import MemoryNodes
from tests.unit.kubectl_restore.conftest import StartRegistry

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kubeconfig: Path,
    api: KubeApi,
    nodes: MemoryNodes,
    start_registry: StartRegistry,
) -> Run:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    archive = tar_of(containerd(SyntheticDump.of_processes(), spec=kubelet_spec()))
    nodes.content = lambda namespace, pod, container: archive
    registry = start_registry()
    api.add_pod("web", "app")

    def start(*words: object) -> tuple[int, str, str]:
        image = f"{registry.host}/ck:1"
        monkeypatch.setattr(sys, "argv", ["kubectl-restore", "run", "web", "-t", image, *map(str, words)])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            signal.signal(signal.SIGTERM, before)
        printed = capsys.readouterr()
        return int(code), printed.out, printed.err

    return start


def names(api: KubeApi) -> list[str]:
    return [each["metadata"]["name"] for each in api.pods()]


def test_copy_beside_its_source(run: Run, api: KubeApi) -> None:
    status, out, err = run("--plain-http")
    assert (status, out) == (0, "pod/web-restored resumed on node node-1\n"), err
    assert names(api) == ["web", "web-restored"]
    assert "checkpoint: finished in " in err and "resume: finished in " in err
    copy = api.pod("web-restored")
    assert copy["spec"]["runtimeClassName"] == "nri-restore"


def test_source_goes_only_after_the_copy_is_ready(run: Run, api: KubeApi) -> None:
    status, out, _ = run("--plain-http", "--delete-source", "-o", "json", "--name", "other")
    assert status == 0
    phases = [json.loads(line) for line in out.splitlines()]
    assert [each["phase"] for each in phases if each["event"] == "finished"] == [
        "checkpoint",
        "push",
        "resume",
        "delete",
    ]
    assert len(api.asked("DELETE", "/pods/web$")) == 1


def test_interrupt_takes_the_copy_back_and_leaves_the_source(
    run: Run, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> str:
        assert "web-restored" in names(api)
        raise KeyboardInterrupt

    monkeypatch.setattr(copy_pod, "await_ready", interrupted)
    status, out, err = run("--plain-http", "--delete-source")
    assert (status, out) == (130, "")
    assert len(api.asked("DELETE", "/pods/web-restored$")) == 1 and not api.asked("DELETE", "/pods/web$")
    assert "pod web-restored is deleted again; the image " in err


def test_push_that_fails_makes_no_pod(run: Run, api: KubeApi) -> None:
    status, out, err = run("-t", "127.0.0.1:1/ck:1", "--plain-http")
    assert (status, out) == (1, "") and err.splitlines()[-1].startswith("error: ")
    assert names(api) == ["web"]


def test_pod_of_that_name_is_not_touched(run: Run, api: KubeApi) -> None:
    api.add_pod("web-restored", "app")
    status, _, err = run("--plain-http")
    assert status == 1 and "choose another --name" in err
    assert not api.asked("POST", "checkpoint") and not api.asked("DELETE", "/pods/web-restored$")


def test_node_that_is_not_there(run: Run, api: KubeApi) -> None:
    assert "no node" in run("--to-node", "none")[2]
    assert not api.asked("POST", "checkpoint")


@pytest.mark.parametrize("how", ["client", "server"])
def test_dry_run_changes_nothing(run: Run, api: KubeApi, how: str) -> None:
    status, out, err = run("--dry-run", how, "--to-node", "node-1")
    assert status == 0, err
    assert json.loads(out)["spec"]["nodeSelector"] == {"kubernetes.io/hostname": "node-1"}
    assert names(api) == ["web"] and not api.asked("POST", "checkpoint")
    assert len(api.asked("POST", "/pods$")) == (how == "server")
