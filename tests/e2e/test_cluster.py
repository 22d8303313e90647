"""The stub API server in front of real nodes, and kubectl-restore's way to a checkpoint through it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.contract import HANDLER
from tests.e2e.cluster import CHECKPOINTS, RealNodes
from tests.e2e.node.counter import count
from tests.e2e.node.inventory import settled
from tests.e2e.node.node import Node
from tests.e2e.node.registry import Registry
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import with_daemon
from tests.support.kube_api import KubeApi

COUNTER = "i=0; while :; do i=$((i+1)); echo $i; echo $i > /root/count; sleep 0.1; done"


@pytest.fixture
def cluster(node_17: Node, node_21: Node) -> Iterator[KubeApi]:
    with KubeApi(RealNodes({"old": node_17, "new": node_21})) as api:
        yield api


class Cli:
    def __init__(self, api: KubeApi, folder: Path) -> None:
        kubeconfig = api.write_kubeconfig(folder / "kubeconfig")
        self._env = {**os.environ, "KUBECONFIG": str(kubeconfig), "HOME": str(folder)}

    def __call__(self, *words: str, status: int = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-c", "from kubectl_restore.cli import main; main()"]
        done = subprocess.run(
            [*program, *words], env=self._env, input=stdin, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == status, done.stderr
        return done


@pytest.fixture
def restore(cluster: KubeApi, tmp_path: Path) -> Cli:
    return Cli(cluster, tmp_path)


def create(api: KubeApi, name: str, image: str, *, node: str = "new", script: str = COUNTER, **spec: Any) -> None:
    container = {"name": "main", "image": image, "command": ["sh", "-c", script]}
    api.run_pod({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [container], **spec}})


def phase(api: KubeApi, name: str) -> str:
    return str(api.pod(name).get("status", {}).get("phase", ""))


def test_checkpoint_of_a_running_pod_comes_whole_from_its_node(
    cluster: KubeApi, restore: Cli, busybox: str, node_21: Node, tmp_path: Path
) -> None:
    create(cluster, "web", busybox)
    wait_for(lambda: phase(cluster, "web") == "Running", "the pod to run")
    archive = tmp_path / "web.tar"
    done = restore("checkpoint", "web", "--save", str(archive), "--transfer-image", busybox, "-o", "json")
    taken = json.loads(done.stdout)
    assert taken["node"] == "new" and taken["path"].startswith(CHECKPOINTS)
    assert archive.read_bytes() == node_21.path(taken["path"]).read_bytes()
    assert archive.stat().st_mode & 0o777 == 0o600
    with tarfile.open(archive) as tar:
        assert {"config.dump", "spec.dump", "checkpoint"} <= {each.name.rstrip("/") for each in tar}
    wait_for(lambda: len(cluster.pods()) == 1, "the transfer pod to go")
    assert phase(cluster, "web") == "Running"

    # What was saved, what is on the node, and a pod are all sources.
    for source in (str(archive), taken["source"], "pod/web"):
        layout = tmp_path / f"layout-{len(source)}"
        restore(
            "build",
            source,
            "-t",
            "example.test/web:1",
            "--format",
            "archive",
            "--oci-layout",
            str(layout),
            "--transfer-image",
            busybox,
        )
        assert (layout / "index.json").is_file()
    wait_for(lambda: len(cluster.pods()) == 1, "the transfer pods to go")


def test_runtime_without_checkpoints_is_named(cluster: KubeApi, restore: Cli, busybox: str) -> None:
    create(cluster, "old-web", busybox, node="old")
    wait_for(lambda: phase(cluster, "old-web") == "Running", "the pod to run")
    done = restore("checkpoint", "old-web", status=1)
    assert "the runtime of node old (containerd 1.7" in done.stderr
    assert "cannot take checkpoints" in done.stderr
    assert cluster.leases() == []


def test_reason_of_criu_is_read_on_the_node(cluster: KubeApi, restore: Cli, busybox: str) -> None:
    listens = "cat /proc/net/tcp /proc/net/tcp6 | grep -q ':0063 .* 0A '"
    script = f"sleep 99 | nc -l -p 99 & until {listens}; do sleep 0.1; done; sleep 99 | nc 127.0.0.1 99"
    create(cluster, "connected", busybox, script=script)
    wait_for(lambda: phase(cluster, "connected") == "Running", "the pod to run")
    listed = backend(cluster).container("connected")
    wait_for(lambda: " 01 " in listed.sh("cat /proc/net/tcp"), "the connection")
    done = restore("checkpoint", "connected", "--transfer-image", busybox, status=1)
    assert "inet: Connected TCP socket, consider using --tcp-established" in done.stderr
    assert "a line 'tcp-established'" in done.stderr
    wait_for(lambda: len(cluster.pods()) == 1, "the transfer pod to go")


def test_container_that_ends_is_started_again(cluster: KubeApi, busybox: str) -> None:
    create(cluster, "brief", busybox, script="echo once; exit 3")

    def restarts() -> int:
        statuses = cluster.pod("brief").get("status", {}).get("containerStatuses", [])
        return int(statuses[0]["restartCount"]) if statuses else 0

    wait_for(lambda: restarts() >= 1, "a restart")
    status = cluster.pod("brief")["status"]["containerStatuses"][0]
    assert status["lastState"]["terminated"]["exitCode"] == 3


def test_pod_that_never_restarts_is_over(cluster: KubeApi, busybox: str) -> None:
    create(cluster, "good", busybox, script="true", restartPolicy="Never")
    create(cluster, "bad", busybox, script="exit 1", restartPolicy="Never")
    wait_for(lambda: (phase(cluster, "good"), phase(cluster, "bad")) == ("Succeeded", "Failed"), "both pods to end")


def test_image_that_cannot_be_pulled_is_reported_as_the_kubelet_does(cluster: KubeApi, busybox: str) -> None:
    create(cluster, "none", busybox.replace("busybox", "nothing"))

    def reason() -> str:
        statuses = cluster.pod("none").get("status", {}).get("containerStatuses", [])
        return str(statuses[0]["state"].get("waiting", {}).get("reason", "")) if statuses else ""

    wait_for(lambda: reason() == "ErrImagePull", "the failed pull")
    assert phase(cluster, "none") == "Pending"


def test_checkpoint_of_a_pod_resumes_as_a_pod(
    cluster: KubeApi, restore: Cli, registry: Registry, busybox: str, node_21: Node
) -> None:
    with_daemon(node_21)
    create(cluster, "web", busybox)
    wait_for(lambda: phase(cluster, "web") == "Running", "the pod to run")
    logged = backend(cluster).container("web").logs()
    image = f"{registry.address}/checkpoints/cluster-web:1"
    restore("build", "pod/web", "-t", image, "--push", "--plain-http", "--transfer-image", busybox)
    cluster.create("RuntimeClass", HANDLER, handler=HANDLER)
    container = {"name": "main", "image": image}
    spec = {"nodeName": "new", "runtimeClassName": HANDLER, "containers": [container]}
    cluster.run_pod({"metadata": {"name": "web-2"}, "spec": spec})
    wait_for(lambda: phase(cluster, "web-2") == "Running", "the restored pod to run")
    resumed = backend(cluster).container("web-2")
    # The log begins with the lines of the first pod; a fresh start would count from 1 again.
    reached = len(logged)
    wait_for(lambda: len(resumed.logs()) > reached, "the counter to go on")
    numbers = [int(line) for line in resumed.logs()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert count(resumed) >= reached


def test_cluster_leaves_nothing_on_its_nodes(node_21: Node, busybox: str, tmp_path: Path) -> None:
    before = node_21.inventory()
    with KubeApi(RealNodes({"new": node_21})) as api:
        create(api, "web", busybox)
        create(api, "brief", busybox, script="exit 1")
        wait_for(lambda: phase(api, "web") == "Running", "the pod to run")
        Cli(api, tmp_path)("checkpoint", "web", "--save", str(tmp_path / "web.tar"), "--transfer-image", busybox)
    assert settled(node_21, before) == {}


def backend(api: KubeApi) -> RealNodes:
    assert isinstance(api.backend, RealNodes)
    return api.backend
