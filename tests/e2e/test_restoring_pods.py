"""``kubectl restore manifest`` and ``status`` on a real node: what the first writes resumes, the second tells of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.contract import HANDLER, POD_CHECKPOINT
from tests.e2e.cluster import RealNodes
from tests.e2e.faults import restore_runc
from tests.e2e.node.kubelet import RUNNING, Container
from tests.e2e.node.node import Node
from tests.e2e.node.registry import Registry
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import Images, Taken, with_daemon
from tests.e2e.test_cluster import backend, phase
from tests.e2e.test_kubectl import Kubectl
from tests.support.kube_api import KubeApi

Object = dict[str, Any]


@pytest.fixture(scope="module")
def cluster(node_17: Node) -> Iterator[KubeApi]:
    with_daemon(node_17)
    with KubeApi(RealNodes({"old": node_17})) as api:
        api.create("RuntimeClass", HANDLER, handler=HANDLER)
        yield api


@pytest.fixture
def kubectl(cluster: KubeApi, tmp_path: Path) -> Iterator[Kubectl]:
    yield Kubectl(tmp_path, cluster.write_kubeconfig(tmp_path / "kubeconfig"))
    for pod in cluster.pods():
        backend(cluster).pod_deleted(pod, 0)
    wait_for(lambda: not cluster.pods(), "the pods to go")


@pytest.fixture(scope="module")
def image(images: Images, own_checkpoint: Taken) -> str:
    return images.of(own_checkpoint, "archive")


def template(taken: Taken) -> Object:
    """What the checkpointed container's pod was made of."""
    env = [{"name": name, "value": value} for name, value in taken.spec.env.items()]
    container = {"name": taken.spec.name, "image": taken.base, "command": list(taken.spec.command), "env": env}
    return {"metadata": {"labels": {"app": "counter"}}, "spec": {"containers": [container]}}


def create(kubectl: Kubectl, folder: Path, document: str | Object) -> None:
    file = folder / "created.yaml"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    kubectl("create", "--validate=false", "-f", str(file))


def resumed(cluster: KubeApi, name: str, taken: Taken) -> Container:
    """The container of a pod that runs, asked for its counter: it is past the checkpoint's, and goes on."""
    wait_for(lambda: phase(cluster, name) == "Running", "the pod to run")

    def counts() -> bool:
        """The newest attempt: one that came too early is followed by another."""
        newest = backend(cluster).container(name)
        return newest.state == RUNNING and bool(newest.logs())

    wait_for(counts, "its log")
    container = backend(cluster).container(name)
    first = int(container.logs()[-1])
    assert first >= int(taken.logged[-1])
    wait_for(lambda: int(container.logs()[-1]) > first, "the counter to go on")
    assert container.sh("cat /root/testfile") == "made\n"
    return container


@pytest.mark.parametrize("more", [[], ["--annotate"]], ids=["image", "annotation"])
def test_pod_of_nothing_but_the_checkpoint_resumes(
    cluster: KubeApi, kubectl: Kubectl, own_checkpoint: Taken, image: str, tmp_path: Path, more: list[str]
) -> None:
    archive = str(own_checkpoint.archive)
    create(kubectl, tmp_path, kubectl("restore", "manifest", archive, "--image", image, "--name", "again", *more))
    resumed(cluster, "again", own_checkpoint)


@pytest.mark.parametrize("more", [[], ["--annotate"]], ids=["image", "annotation"])
def test_pod_like_the_one_it_was_taken_of_resumes(
    cluster: KubeApi, kubectl: Kubectl, own_checkpoint: Taken, image: str, tmp_path: Path, more: list[str]
) -> None:
    create(
        kubectl, tmp_path, {"apiVersion": "v1", "kind": "Pod", **template(own_checkpoint), "metadata": {"name": "web"}}
    )
    source = [str(own_checkpoint.archive), "--image", image]
    create(kubectl, tmp_path, kubectl("restore", "manifest", *source, "--from-pod", "web", *more))
    resumed(cluster, "web-restored", own_checkpoint)


@pytest.mark.parametrize(
    ("kind", "more"), [("Deployment", []), ("Deployment", ["--annotate"]), ("StatefulSet", ["--annotate"]), ("Job", [])]
)
def test_pod_of_a_patched_workload_resumes(
    cluster: KubeApi,
    kubectl: Kubectl,
    own_checkpoint: Taken,
    image: str,
    tmp_path: Path,
    kind: str,
    more: list[str],
) -> None:
    """The stub has no controllers: the pod that one would make of the template is made here."""
    name = f"{kind.lower()}-{'annotated' if more else 'image'}"
    spec = {"selector": {"matchLabels": {"app": "counter"}}, "template": template(own_checkpoint)}
    group = "batch" if kind == "Job" else "apps"
    create(kubectl, tmp_path, {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
    source = [str(own_checkpoint.archive), "--image", image]
    written = kubectl("restore", "manifest", *source, "--from-pod", f"{kind.lower()}/{name}", *more)
    if kind == "Job":
        create(kubectl, tmp_path, written)
        name = f"{name}-restored"
    else:
        patch = tmp_path / "patch.yaml"
        patch.write_text(written)
        command = written.partition("\n")[0].removeprefix("# kubectl ").replace("FILE", str(patch))
        kubectl(*command.split())
    made = json.loads(kubectl("get", kind.lower(), name, "-o", "json"))["spec"]["template"]
    pod = {**made, "metadata": {**made["metadata"], "name": "made"}, "apiVersion": "v1", "kind": "Pod"}
    create(kubectl, tmp_path, pod)
    resumed(cluster, "made", own_checkpoint)


def status(kubectl: Kubectl, name: str) -> Object:
    document: Object = yaml.safe_load(kubectl("restore", "status", name, "-o", "yaml"))
    return document


def annotated(taken: Taken, image: str, **container: Any) -> Object:
    made = template(taken)
    made["spec"]["runtimeClassName"] = HANDLER
    made["spec"]["containers"][0].update(container)
    metadata = {"name": "web", "annotations": {POD_CHECKPOINT: image}}
    return {"apiVersion": "v1", "kind": "Pod", "spec": made["spec"], "metadata": metadata}


def test_status_of_a_restore_that_the_node_refused(
    cluster: KubeApi, kubectl: Kubectl, own_checkpoint: Taken, image: str, tmp_path: Path
) -> None:
    create(kubectl, tmp_path, annotated(own_checkpoint, image, tty=True))
    wait_for(lambda: status(kubectl, "web")["containers"][0]["restore"] == "refused", "the refusal")
    failure = status(kubectl, "web")["containers"][0]["failure"]
    assert failure["code"] == "TtyDiffers" and "set tty: false" in failure["sentence"]
    assert not failure["sentence"].endswith("unknown")
    lines = kubectl("restore", "status", "web").splitlines()
    assert lines[2].split()[:2] == ["counter", "refused"]
    assert lines[3:6] == [
        f"counter: TtyDiffers: {failure['sentence']}",
        f"  what to do: {failure['remedy']}",
        "  see docs/reasons.md",
    ]


def test_status_while_the_node_prepares_and_once_it_has_resumed(
    cluster: KubeApi,
    kubectl: Kubectl,
    own_checkpoint: Taken,
    images: Images,
    registry: Registry,
    node_17: Node,
    tmp_path: Path,
) -> None:
    layered = images.of(own_checkpoint, "layered")
    node_17.cri.remove_image(layered)
    node_17.cri.pull_image(own_checkpoint.base)
    # Longer than the commands take here: the first attempt is to be the one that resumes.
    with restore_runc(node_17, wait_s=100), registry.frozen():
        create(kubectl, tmp_path, annotated(own_checkpoint, layered))
        wait_for(lambda: status(kubectl, "web")["containers"][0]["restore"] == "preparing", "the preparation")
        assert "pulling or preparing the checkpoint" in kubectl("restore", "status", "web")
    resumed(cluster, "web", own_checkpoint)
    wait_for(lambda: status(kubectl, "web")["ready"], "the pod to be Ready")
    assert kubectl("restore", "status", "web").splitlines() == [
        f"pod default/web on node old: Running, Ready, runtimeClass {HANDLER}",
        f"CONTAINER   RESTORE   STATE     RESTARTS   {'CHECKPOINT'.ljust(len(layered))}".rstrip(),
        f"counter     resumed   running   0          {layered}",
    ]
