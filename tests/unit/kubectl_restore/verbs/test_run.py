from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import yaml

from kubectl_restore.run import flow
from shared.errors import RestoreError
from tests.support.checkpoints import SyntheticDump, containerd, tar_of
from tests.support.fake_registry import FakeRegistry
from tests.support.inspected import kubelet_spec
from tests.support.kube_api import KubeApi
from tests.support.kube_memory import MemoryNodes
from tests.unit.kubectl_restore.conftest import StartRegistry
from tests.unit.kubectl_restore.verbs.conftest import Run


@pytest.fixture
def registry(start_registry: StartRegistry) -> FakeRegistry:
    return start_registry()


@pytest.fixture
def run(
    command: Run,
    monkeypatch: pytest.MonkeyPatch,
    kubeconfig: Path,
    api: KubeApi,
    nodes: MemoryNodes,
    registry: FakeRegistry,
) -> Run:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    archive = tar_of(containerd(SyntheticDump.of_processes(), spec=kubelet_spec()))
    nodes.content = lambda namespace, pod, container: archive
    api.create("RuntimeClass", "nri-restore", handler="nri-restore")
    api.add_pod("web", "app")
    return partial(command, "run", "web", "-t", f"{registry.host}/ck:1")


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
        "fetch",
        "push",
        "resume",
        "delete",
    ]
    assert len(api.asked("DELETE", "/pods/web$")) == 1
    assert phases[-1]["event"] == "resumed" and (phases[-1]["pod"], phases[-1]["node"]) == ("other", "node-1")


@pytest.mark.parametrize("before", [False, True])
def test_interrupt_takes_everything_back_and_leaves_the_source(
    run: Run, api: KubeApi, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    if before:
        registry.add_manifest("ck", "1", b'{"mediaType": "application/vnd.oci.image.manifest.v1+json"}')
    was = dict(registry.manifests)

    def interrupted(*_: object) -> str:
        assert "web-restored" in names(api) and len(registry.manifests) > len(was)
        raise KeyboardInterrupt

    monkeypatch.setattr(flow, "await_ready", interrupted)
    status, out, err = run("--plain-http", "--delete-source")
    assert (status, out) == (130, "")
    assert len(api.asked("DELETE", "/pods/web-restored$")) == 1 and not api.asked("DELETE", "/pods/web$")
    assert registry.manifests == was
    lines = err.splitlines()
    assert lines[-2] == "pod web-restored is deleted again"
    assert lines[-1] == (
        f"what was pushed is deleted again, and {registry.host}/ck:1 is what it was before"
        if before
        else f"the image {registry.host}/ck:1 is deleted again"
    )


def test_image_that_the_registry_does_not_delete_is_named(
    run: Run, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> str:
        raise RestoreError("RestoreFailed", "no")

    monkeypatch.setattr(flow, "await_ready", failing)
    registry.faults.fail["DELETE"] = [405]
    status, _, err = run("--plain-http")
    assert status == 1
    (digest,) = [name for _, name in registry.manifests if name.startswith("sha256:")]
    assert f"the image {registry.host}/ck:1@{digest} stays, with the container's memory in it: " in err


def test_registry_that_cannot_be_reached_is_said_before_the_checkpoint(run: Run, api: KubeApi) -> None:
    status, out, err = run("-t", "127.0.0.1:1/ck:1", "--plain-http")
    assert (status, out) == (1, "") and err.splitlines()[-1].startswith("error: ")
    assert names(api) == ["web"] and not api.asked("POST", "checkpoint")


def test_push_that_fails_makes_no_pod(run: Run, api: KubeApi, registry: FakeRegistry) -> None:
    registry.faults.forbid = "ck"
    status, out, err = run("--plain-http")
    assert (status, out) == (1, "") and "push: failed in " in err
    assert names(api) == ["web"] and not registry.count("DELETE", "manifests")


def test_containers_that_are_not_restored_are_named(run: Run, api: KubeApi) -> None:
    api.forget_pod("default", "web")
    api.add_pod("web", "app", "side")
    assert "container side starts afresh: " in run("--plain-http", "-c", "app")[2]


def test_runtime_class_that_is_not_there(run: Run, api: KubeApi) -> None:
    status, _, err = run("--runtime-class", "gold")
    assert status == 1 and "the cluster has no RuntimeClass gold" in err
    assert not api.asked("POST", "checkpoint")
    api.forbid("get", "runtimeclasses")
    status, _, err = run("--plain-http", "--runtime-class", "gold")
    assert status == 0, err
    assert api.pod("web-restored")["spec"]["runtimeClassName"] == "gold"


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
    copy = yaml.safe_load(out)
    assert copy["spec"]["nodeSelector"] == {"kubernetes.io/hostname": "node-1"}
    assert json.loads(run("--dry-run", how, "--to-node", "node-1", "-o", "json")[1]) == copy
    assert names(api) == ["web"] and not api.asked("POST", "checkpoint")
    assert len(api.asked("POST", "/pods$")) == 2 * (how == "server")
