from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.support.kube_api import KubeApi
from tests.support.kube_backend import Answer
from tests.support.kube_memory import CHECKPOINTS, MemoryNodes
from tests.unit.kubectl_restore.verbs.conftest import Run


@pytest.fixture
def run(command: Run, monkeypatch: pytest.MonkeyPatch, kubeconfig: Path) -> Run:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    return partial(command, "checkpoint")


def test_table_says_where_the_archive_is(api: KubeApi, run: Run) -> None:
    api.add_pod("web")
    status, printed, problems = run("web")
    assert (status, problems) == (0, "")
    head, row = printed.splitlines()
    assert head.split() == ["NODE", "PATH", "SIZE", "TIME"]
    assert row.startswith(f"node-1   {CHECKPOINTS}/checkpoint-web_default-main-")
    assert row.split()[2] == "<unknown>"


def test_wide_table_says_more(api: KubeApi, run: Run) -> None:
    api.add_pod("web")
    _, printed, _ = run("pod/web", "-o", "wide")
    head, row = printed.splitlines()
    assert head.split() == ["NAMESPACE", "POD", "CONTAINER", "NODE", "PATH", "SIZE", "TIME", "VIA", "FILE"]
    assert row.split()[:3] == ["default", "web", "main"]
    assert row.split()[-2:] == ["apiserver", "<none>"]


def test_name_is_a_source(api: KubeApi, nodes: MemoryNodes, run: Run) -> None:
    api.add_pod("web")
    _, printed, _ = run("web", "-o", "name")
    node, _, path = printed.strip().partition(":")
    assert node == "node/node-1"
    assert nodes.path(path).exists()


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_documents(api: KubeApi, run: Run, output: str, read: Callable[[str], dict[str, object]]) -> None:
    pod = api.add_pod("web", "a", "b", namespace="shop")
    _, printed, _ = run("web", "-c", "b", "-n", "shop", "-o", output)
    document = read(printed)
    assert document["source"] == f"node/node-1:{document['path']}"
    assert (document["namespace"], document["pod"], document["container"]) == ("shop", "web", "b")
    assert document["podUID"] == pod["metadata"]["uid"]
    assert document["via"] == "apiserver"
    assert "sizeBytes" not in document


def test_saved_archive_has_a_known_size(api: KubeApi, run: Run, tmp_path: Path) -> None:
    api.add_pod("web")
    saved = tmp_path / "web.tar"
    status, printed, _ = run("web", "--save", saved, "-o", "json")
    assert status == 0
    assert json.loads(printed)["sizeBytes"] == len(saved.read_bytes()) == 17
    assert len(api.pods()) == 1


def test_existing_file_stops_it_before_anything_is_done(api: KubeApi, run: Run, tmp_path: Path) -> None:
    api.add_pod("web")
    (tmp_path / "web.tar").touch()
    status, _, problems = run("web", "--save", tmp_path / "web.tar")
    assert (status, "exists already" in problems) == (2, True)
    assert api.requests == []


def test_missing_right_prints_the_sentence_and_what_to_apply(api: KubeApi, run: Run) -> None:
    api.add_pod("web")
    api.forbid("create", "nodes/proxy")
    status, printed, problems = run("web", "--via", "apiserver")
    assert (status, printed) == (1, "")
    sentence, _, manifest = problems.partition("\n\n")
    assert sentence.startswith('error: user "kubernetes-admin" may not create nodes/proxy')
    assert [each["kind"] for each in yaml.safe_load_all(manifest)] == ["ClusterRole", "ClusterRoleBinding"]


def test_flags_reach_the_kubelet(api: KubeApi, run: Run) -> None:
    api.add_pod("web")
    status, _, problems = run(
        "web", "--via", "kubelet", "--kubelet-address", f"127.0.0.1:{api.kubelet_port}", "--timeout", "1m30s"
    )
    assert (status, problems) == (0, "")
    (request,) = api.asked("POST", "/checkpoint/", "kubelet")
    assert request.query["timeout"] == ["90"]


def test_impersonation_reaches_the_server(api: KubeApi, run: Run) -> None:
    api.add_pod("web")
    api.forbid("create", "nodes/proxy", user="jane")
    status, _, problems = run("web", "--as", "jane", "--as-group", "dev")
    assert (status, '"jane" may not create nodes/proxy' in problems) == (1, True)


@pytest.mark.parametrize("timeout", ["0", "soon", "-1"])
def test_timeout_that_is_none_is_wrong_usage(api: KubeApi, run: Run, timeout: str) -> None:
    status, _, problems = run("web", "--timeout", timeout)
    assert (status, "--timeout" in problems) == (2, True)


def test_second_checkpoint_at_the_same_time_is_told_of_the_first(
    api: KubeApi, nodes: MemoryNodes, run: Run, kubeconfig: Path
) -> None:
    api.add_pod("web")
    nodes.checkpoint_s = 2
    with start(kubeconfig, "checkpoint", "web") as first:
        wait(lambda: bool(api.leases()))
        status, _, problems = run("web")
        assert status == 1
        assert f"(process {first.pid})" in problems
        assert first.wait(60) == 0
    assert api.leases() == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_interrupted_transfer_removes_its_pod_and_file(
    api: KubeApi, nodes: MemoryNodes, kubeconfig: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    api.add_pod("web")
    nodes.content = lambda *_: bytes(3_000_000)
    nodes.on_output = lambda sent: time.sleep(0.05)
    saved = tmp_path / "web.tar"
    with start(kubeconfig, "checkpoint", "web", "--save", str(saved)) as child:
        wait(lambda: saved.exists() and saved.stat().st_size > 100_000)
        child.send_signal(number)
        assert child.wait(60) == status
        assert child.stderr
        assert "Traceback" not in child.stderr.read().decode()
    assert [each["metadata"]["name"] for each in api.pods()] == ["web"]
    assert not saved.exists()


def test_interrupted_checkpoint_frees_its_lock(api: KubeApi, nodes: MemoryNodes, kubeconfig: Path) -> None:
    api.add_pod("web")
    nodes.checkpoint_s = 30
    with start(kubeconfig, "checkpoint", "web") as child:
        wait(lambda: bool(api.asked("POST", "/proxy/")))
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
    assert api.leases() == []


def test_kubelets_reason_is_the_error(api: KubeApi, nodes: MemoryNodes, run: Run) -> None:
    api.add_pod("web")
    nodes.answers.append(
        Answer(
            500,
            "checkpointing of default/web/main failed "
            "(rpc error: code = Unknown desc = criu failed: type DUMP errno 22)",
        )
    )
    status, printed, problems = run("web")
    assert (status, printed) == (1, "")
    assert problems == (
        "error: the checkpoint of container main of pod default/web failed on node node-1: "
        "criu failed: type DUMP errno 22\n"
    )


def start(kubeconfig: Path, *words: str) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-c", "from kubectl_restore.cli import main; main()", *words]
    return subprocess.Popen(
        program, env={**os.environ, "KUBECONFIG": str(kubeconfig)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait(predicate: Callable[[], bool], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not predicate():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_several_containers_one_after_the_other(api: KubeApi, run: Run) -> None:
    api.add_pod("web", "main", "side", initContainers=[{"name": "proxy", "restartPolicy": "Always"}, {"name": "once"}])
    status, printed, problems = run("web", "-c", "side", "-c", "main")
    assert (status, problems) == (0, "")
    head, *rows = printed.splitlines()
    assert head.split() == ["CONTAINER", "NODE", "PATH", "SIZE", "TIME"]
    assert [row.split()[0] for row in rows] == ["side", "main"]
    document = json.loads(run("web", "--all-containers", "-o", "json")[1])
    assert document["kind"] == "List"
    assert [each["container"] for each in document["items"]] == ["main", "side", "proxy"]
    assert len(run("web", "--all-containers", "-o", "name")[1].splitlines()) == 3


def test_what_was_taken_is_told_when_the_next_one_fails(api: KubeApi, nodes: MemoryNodes, run: Run) -> None:
    api.add_pod("web", "main", "side")
    nodes.answers += [Answer(200, {"items": [f"{CHECKPOINTS}/a.tar"]}), Answer(500, "failed (criu said no)")]
    status, printed, problems = run("web", "--all-containers", "-o", "name")
    assert (status, printed) == (1, f"node/node-1:{CHECKPOINTS}/a.tar\n")
    assert "container side" in problems and "criu said no" in problems
    assert api.leases() == []


@pytest.mark.parametrize("words", [["--save", "x.tar"], ["-c", "main"]])
def test_all_containers_do_not_go_with_what_is_of_one(api: KubeApi, run: Run, words: list[str]) -> None:
    api.add_pod("web", "main", "side")
    status, printed, _ = run("web", "--all-containers", *words)
    assert (status, printed) == (2, "") and not api.asked("POST", "checkpoint")


def test_name_that_is_not_there_is_noticed_before_the_first_checkpoint(api: KubeApi, run: Run) -> None:
    api.add_pod("web", "main", "side")
    status, printed, problems = run("web", "-c", "main", "-c", "nope")
    assert (status, printed) == (1, "") and "no container nope" in problems
    assert not api.asked("POST", "checkpoint")
