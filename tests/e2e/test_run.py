"""``kubectl restore run`` on real nodes: a pod of containerd 2.1 resumes on containerd 1.7, or leaves nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.contract import HANDLER
from tests.e2e.cluster import RealNodes
from tests.e2e.node.node import Node
from tests.e2e.node.registry import Registry
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import local, with_daemon
from tests.e2e.test_cluster import Cli, backend, create, phase
from tests.support.kube_api import KubeApi


@pytest.fixture
def cluster(node_17: Node, node_21: Node) -> Iterator[KubeApi]:
    with KubeApi(RealNodes({"old": node_17, "new": node_21})) as api:
        api.create("RuntimeClass", HANDLER, handler=HANDLER)
        yield api


def test_pod_moves_to_another_runtime_and_its_counter_goes_on(
    cluster: KubeApi, registry: Registry, busybox: str, node_17: Node, tmp_path: Path
) -> None:
    with_daemon(node_17)
    restore = Cli(cluster, tmp_path)
    create(cluster, "web", busybox)
    wait_for(lambda: phase(cluster, "web") == "Running", "the pod to run")
    source = backend(cluster).container("web")
    wait_for(lambda: len(source.logs()) > 3, "the counter to count")
    pushed = f"{registry.address}/checkpoints/run:1"
    words = ["run", "web", "-t", pushed, "--pull", local("checkpoints/run:1"), "--plain-http"]
    words += ["--transfer-image", busybox, "--to-node", "old"]

    # A copy that cannot start is gone again, and the source is not.
    failed = restore(*words[:4], "--pull", local("nothing:1"), *words[6:], "--delete-source", "--wait", "5s", status=1)
    assert "error: pod web-restored was not Ready after 5 s: ErrImagePull" in failed.stderr
    wait_for(lambda: [each["metadata"]["name"] for each in cluster.pods()] == ["web"], "the copy to go")

    done = restore(*words, "--delete-source", "-o", "json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    finished = [each["phase"] for each in events if each["event"] == "finished"]
    assert finished == ["checkpoint", "push", "resume", "delete"]
    assert next(each["bytes"] for each in events if each["event"] == "finished" and each["phase"] == "push") > 0
    copy = cluster.pod("web-restored")
    assert copy["spec"]["nodeName"] == "old"
    resumed = backend(cluster).container("web-restored")
    first = int(resumed.sh("cat /root/count"))
    assert first > 3
    wait_for(lambda: int(resumed.sh("cat /root/count")) > first, "the counter to go on")
    # A shell as PID 1 does not hear SIGTERM: it ends with its grace period.
    ending = {each["metadata"]["name"]: "deletionTimestamp" in each["metadata"] for each in cluster.pods()}
    assert ending.get("web", True) and not ending["web-restored"]
