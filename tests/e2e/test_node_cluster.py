"""The daemon with credentials for the Kubernetes API: Events on pods, their pull secrets, the node's annotation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import RealNodes
from tests.e2e.faults import counts_on
from tests.e2e.joined import LOGIN, Joined, joined_node, private_registry, pull_secret
from tests.e2e.node.counter import printed
from tests.e2e.node.image import busybox_image
from tests.e2e.node.kubelet import Kubelet
from tests.e2e.node.network import Network
from tests.e2e.node.node import Node
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import base_root
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import Images, Taken, checkpointed
from tests.support.kube_objects import resource

COUNTER = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"


@pytest.fixture
def joined(network: Network, node_17: Node) -> Iterator[Joined]:
    with joined_node(network, node_17) as joined:
        yield joined


@pytest.fixture
def private(registry: Registry, node_17: Node, node_21: Node) -> Iterator[str]:
    """``HOST:PORT`` of a registry with the other's images, for who can log in."""
    with private_registry(registry, node_17, node_21) as private:
        yield private.address


@pytest.fixture
def taken_private(private: str, registry: Registry, node_21: Node, kubelet_of: Any, checkpoints: Path) -> Taken:
    """A checkpoint whose base image nobody gets without a login, and which node_17 does not have."""
    image = busybox_image(base_root("containerd-1.7"), {"etc/private": b"private\n"})
    base = registry.push(image, "private:1").replace(registry.address, private)
    node_21.cri.pull_image(base, auth=LOGIN)
    kubelet: Kubelet = kubelet_of(node_21)
    spec = ContainerSpec(base, "counter", ("sh", "-c", COUNTER))
    return checkpointed(kubelet, checkpoints, PodSpec("private"), spec, lambda each: len(printed(each)) > 3)


def test_private_base_image_is_pulled_with_the_pods_secret_and_the_pod_says_how_it_went(
    joined: Joined, private: str, registry: Registry, taken_private: Taken, tmp_path: Path
) -> None:
    archive, public = f"{registry.address}/checkpoints/private:1", f"{registry.address}/private:1"
    command = [sys.executable, "-c", "from kubectl_restore.cli import main; main()"]
    words = ["build", str(taken_private.archive), "-t", archive, "--format", "archive", "--base", public]
    built = subprocess.run([*command, *words, "--push", "--plain-http"], capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr

    joined.run("without", archive)
    wait_for(lambda: bool(joined.events("without")), "the event on the pod without a secret")
    reason, message = joined.events("without")[0]
    assert (
        reason == "RestoreRefused"
        and message.startswith("BaseImageMissing: ")
        and "no basic auth credentials" in message
    )

    data = {".dockerconfigjson": pull_secret(private)}
    joined.api.create("Secret", "pull", "default", type="kubernetes.io/dockerconfigjson", data=data)
    joined.run("with", archive, imagePullSecrets=[{"name": "pull"}])
    wait_for(lambda: bool(joined.events("with")), "the event on the pod with the secret")
    assert joined.events("with") == [("Restored", "the container resumed from its checkpoint")]
    backend = joined.api.backend
    assert isinstance(backend, RealNodes)
    assert backend.container("with").sh("cat /etc/private") == "private\n"
    counts_on(backend.container("with"))


def test_node_says_what_check_wants_to_know(
    joined: Joined, images: Images, own_checkpoint: Taken, tmp_path: Path
) -> None:
    kind = resource("nodes")
    assert kind
    wait_for(
        lambda: "nri-restore/node-facts" in joined.api.objects.get(kind, "", "old")["metadata"].get("annotations", {}),
        "the node's annotation",
    )
    document = joined.api.kubeconfig()
    del document["clusters"][0]["cluster"]["certificate-authority"]
    document["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True
    (tmp_path / "kubeconfig").write_text(json.dumps(document))
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig"), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", "from kubectl_restore.cli import main; main()", "check"]
    words = [str(own_checkpoint.archive), "--node", "old", "--base", "none", "-o", "json"]
    done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True, timeout=300)
    found = {each["code"]: each["level"] for each in json.loads(done.stdout)["findings"]}
    assert "unknown" not in found.values(), done.stdout
