"""``kubectl restore run`` on real nodes: a pod of containerd 2.1 resumes on containerd 1.7, or nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from shared.contract import HANDLER
from tests.e2e.cluster import RealNodes
from tests.e2e.cosign import Cosign
from tests.e2e.node.image import MANIFEST
from tests.e2e.node.node import Node
from tests.e2e.node.registry import Registry
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import local, with_daemon
from tests.e2e.test_cluster import COUNTER, backend, create, phase
from tests.e2e.test_kubectl import Kubectl
from tests.support.kube_api import KubeApi


@pytest.fixture(scope="module")
def cluster(node_17: Node, node_21: Node, busybox: str) -> Iterator[KubeApi]:
    """Two nodes and the pod ``web``, which counts on the one that can take checkpoints."""
    with_daemon(node_17)
    with KubeApi(RealNodes({"old": node_17, "new": node_21})) as api:
        api.create("RuntimeClass", HANDLER, handler=HANDLER)
        create(api, "web", busybox, script=f"trap 'exit 0' TERM; {COUNTER}")
        wait_for(lambda: phase(api, "web") == "Running", "the pod to run")
        source = backend(api).container("web")
        wait_for(lambda: len(source.logs()) > 3, "the counter to count")
        yield api


@pytest.fixture
def kubectl(cluster: KubeApi, tmp_path: Path) -> Kubectl:
    return Kubectl(tmp_path, cluster.write_kubeconfig(tmp_path / "kubeconfig"))


def words(registry: Registry, busybox: str, repository: str, *more: str) -> list[str]:
    name = f"checkpoints/{repository}:1"
    plain = ["--plain-http", "--pull", local(name), "--transfer-image", busybox, "--to-node", "old"]
    return ["restore", "run", "web", "-t", f"{registry.address}/{name}", *plain, *more]


def left(cluster: KubeApi, registry: Registry, repository: str, home: Path) -> dict[str, object]:
    """What a run may have made, apart from the archive on the node."""
    return {
        "pods": sorted(each["metadata"]["name"] for each in cluster.pods()),
        "leases": cluster.leases(),
        "tags": json.loads(registry.request("GET", f"/v2/checkpoints/{repository}/tags/list")[2]).get("tags"),
        "downloads": list((home / ".cache/kubectl-restore").glob("*")),
    }


NOTHING = {"pods": ["web"], "leases": [], "tags": None, "downloads": []}


@pytest.mark.parametrize("at", ["checkpoint", "fetch", "push", "resume"])
def test_ctrl_c_leaves_nothing_behind(
    cluster: KubeApi, kubectl: Kubectl, registry: Registry, busybox: str, tmp_path: Path, at: str
) -> None:
    command = ["kubectl", *words(registry, busybox, f"ended-{at}", "--delete-source", "-o", "json")]
    # A session of its own: Ctrl-C reaches the whole process group of a terminal.
    with subprocess.Popen(
        command, env=kubectl.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stdout and running.stderr
        for line in running.stdout:
            event = json.loads(line)
            # Once the copy waits, it is there.
            if event.get("phase") == at and event["event"] == ("waiting" if at == "resume" else "started"):
                os.killpg(running.pid, signal.SIGINT)
                break
        rest = [json.loads(line) for line in running.stdout]
        assert running.wait(60) == 130, running.stderr.read()
    assert [each["event"] for each in rest if each.get("phase")][-1] == "failed"
    wait_for(lambda: left(cluster, registry, f"ended-{at}", tmp_path) == NOTHING, "everything to be undone")
    assert phase(cluster, "web") == "Running"
    if at == "resume":
        assert [each["about"] for each in rest if each["event"] == "note"] == [
            "pod web-restored is deleted again",
            f"the image {registry.address}/checkpoints/ended-resume:1 is deleted again",
        ]


def test_copy_that_cannot_start_is_undone_and_says_why(
    cluster: KubeApi, kubectl: Kubectl, registry: Registry, busybox: str, tmp_path: Path
) -> None:
    failed = kubectl.run(
        *words(registry, busybox, "failed", "--delete-source", "--wait", "6s", "--pull", local("no:1"))
    )
    assert failed.returncode == 1
    assert "error: pod web-restored was not Ready after 6 s: ErrImagePull" in failed.stderr
    wait_for(lambda: left(cluster, registry, "failed", tmp_path) == NOTHING, "everything to be undone")


def test_dry_run_on_the_server_makes_nothing(
    cluster: KubeApi, kubectl: Kubectl, registry: Registry, busybox: str, tmp_path: Path
) -> None:
    copy = yaml.safe_load(kubectl(*words(registry, busybox, "dry", "--dry-run=server")))
    assert copy["spec"]["containers"][0]["image"] == local("checkpoints/dry:1")
    assert cluster.asked("POST", "/pods$")[-1].query == {"dryRun": ["All"]}
    assert left(cluster, registry, "dry", tmp_path) == NOTHING


def test_pod_moves_to_another_runtime_and_its_counter_goes_on(
    cluster: KubeApi, kubectl: Kubectl, registry: Registry, busybox: str, tmp_path: Path
) -> None:
    """The last one: it deletes the pod of the others."""
    counted = int(backend(cluster).container("web").logs()[-1])
    cosign = Cosign("containerd-2.1", tmp_path / "cosign")
    key = cosign.key("own")
    environment = {"COSIGN_PASSWORD": "secret", "PATH": f"{cosign.folder}/bin:{kubectl.env['PATH']}"}
    more = ["--delete-source", "-o", "json", "--sign-key", str(key), "--compress", "zstd"]
    done = kubectl(*words(registry, busybox, "run", *more), **environment)
    events = [json.loads(line) for line in done.splitlines()]
    ended = {each["phase"]: each["bytes"] for each in events if each["event"] == "finished"}
    assert list(ended) == ["checkpoint", "fetch", "push", "resume", "delete"]
    assert ended["fetch"] > 0 and ended["push"] > 0
    last = events[-1]
    assert (last["event"], last["pod"], last["node"]) == ("resumed", "web-restored", "old")
    resumed = backend(cluster).container("web-restored")
    first = int(resumed.logs()[-1])
    assert first >= counted
    _, _, manifest = registry.request("GET", "/v2/checkpoints/run/manifests/1", headers={"Accept": MANIFEST})
    assert json.loads(manifest)["layers"][-1]["mediaType"].endswith(".tar+zstd")
    tags = json.loads(registry.request("GET", "/v2/checkpoints/run/tags/list")[2])["tags"]
    assert [each.partition("-")[0] for each in tags if each != "1"] == ["sha256"]  # that of its signature
    wait_for(lambda: int(resumed.logs()[-1]) > first, "the counter to go on")
    wait_for(lambda: [each["metadata"]["name"] for each in cluster.pods()] == ["web-restored"], "the source to go")
