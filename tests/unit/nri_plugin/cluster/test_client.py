"""The worker's way to an API server, over TLS and through the child process, as the daemon goes it."""

from __future__ import annotations

import base64
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nri_plugin.cluster import client
from nri_plugin.cluster.client import ClusterClient
from nri_plugin.config import load
from nri_plugin.logs import Subject
from nri_plugin.restore.outcome import Outcome
from shared.contract import NODE_FACTS
from shared.node_facts import from_annotation, gather
from tests.support.kube_api import Ban, KubeApi
from tests.support.kube_backend import Answer
from tests.support.kube_memory import MemoryNodes
from tests.support.kube_objects import resource

EVENTS, NODES = resource("events"), resource("nodes")
assert EVENTS and NODES
REFUSED = Outcome("refused", "TtyDiffers", "give the pod a tty")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    with KubeApi(MemoryNodes(tmp_path / "nodes")) as api:
        yield api


@pytest.fixture
def configured(tmp_path: Path, api: KubeApi) -> Callable[..., ClusterClient]:
    def make(node: str = "node-1", **kubeconfig: str) -> ClusterClient:
        api.write_kubeconfig(tmp_path / "kubeconfig", **kubeconfig)
        file = tmp_path / "config.toml"
        file.write_text(f"[cluster]\nkubeconfig = '{tmp_path}/kubeconfig'\nnode = '{node}'\n")
        return ClusterClient(load(file).cluster)

    return make


@pytest.fixture
def cluster(configured: Callable[..., ClusterClient]) -> ClusterClient:
    return configured()


def subject(api: KubeApi, **spec: Any) -> Subject:
    pod = api.add_pod("web", **spec)
    return Subject("default", "web", pod["metadata"]["uid"], "main", "c" * 64)


def events(api: KubeApi, done: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """All Events once they are as ``done`` wants."""
    deadline = time.monotonic() + 60
    while not done(found := api.objects.find(EVENTS)):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def test_event_says_which_container_what_and_why(api: KubeApi, cluster: ClusterClient) -> None:
    about = subject(api)
    cluster.announce(about, REFUSED)
    (event,) = events(api, lambda found: len(found) == 1)
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "default",
        "name": "web",
        "uid": about.pod_uid,
        "fieldPath": "spec.containers{main}",
    }
    assert (event["reason"], event["message"]) == ("RestoreRefused", "TtyDiffers: give the pod a tty")
    assert (event["type"], event["count"], event["source"]) == (
        "Warning",
        1,
        {"component": "nri-restore", "host": "node-1"},
    )


@pytest.mark.parametrize(
    ("outcome", "reason", "kind", "says"),
    [
        (Outcome("restored", restore_s=0.1), "Restored", "Normal", "the container resumed from its checkpoint"),
        (Outcome("failed", "CriuFailed", "x"), "RestoreFailed", "Warning", "CriuFailed: x"),
        (
            Outcome("started", "CriuFailed", "x"),
            "RestoreFailed",
            "Warning",
            "the container started afresh: CriuFailed: x",
        ),
    ],
)
def test_every_outcome_has_its_event(
    api: KubeApi, cluster: ClusterClient, outcome: Outcome, reason: str, kind: str, says: str
) -> None:
    cluster.announce(subject(api), outcome)
    (event,) = events(api, lambda found: len(found) == 1)
    assert (event["reason"], event["type"], event["message"]) == (reason, kind, says)


def test_the_same_again_raises_the_count_also_after_a_restart(
    api: KubeApi, configured: Callable[..., ClusterClient]
) -> None:
    about, first = subject(api), configured()
    for _ in range(3):
        first.announce(about, REFUSED)
    (event,) = events(api, lambda found: [each["count"] for each in found] == [3])
    configured().announce(about, REFUSED)
    events(api, lambda found: len(api.asked("PATCH", "/events/")) == 3)
    (again,) = api.objects.find(EVENTS)
    assert again["metadata"]["name"] == event["metadata"]["name"]


def test_event_that_has_expired_is_made_again(api: KubeApi, cluster: ClusterClient) -> None:
    about = subject(api)
    cluster.announce(about, REFUSED)
    (event,) = events(api, lambda found: len(found) == 1)
    api.objects.remove(EVENTS, "default", event["metadata"]["name"])
    cluster.announce(about, REFUSED)
    events(api, lambda found: [each["count"] for each in found] == [2])


def test_one_event_that_is_refused_does_not_keep_the_others(
    api: KubeApi, cluster: ClusterClient, caplog: pytest.LogCaptureFixture
) -> None:
    gone = Subject("terminating", "web", "u", "main", "c" * 64)
    api.forbid("create", "events", namespace="terminating")
    with cluster._guard:
        cluster._sending = True
        cluster._waiting.extend([cluster._event(gone, REFUSED), cluster._event(subject(api), REFUSED)])
    cluster._send()
    assert [each["metadata"]["namespace"] for each in api.objects.find(EVENTS)] == ["default"]
    assert "ApiRefused" in caplog.text and "forbidden" in caplog.text


def test_start_that_the_pod_always_wants_is_no_news(api: KubeApi, cluster: ClusterClient) -> None:
    cluster.announce(subject(api), Outcome("started"))
    assert not cluster._waiting and not cluster._sending


def test_logins_are_those_of_the_pods_secrets(api: KubeApi, cluster: ClusterClient) -> None:
    auths = {"registry.example": {"username": "robot", "password": "s3cret"}}
    data = base64.b64encode(json.dumps({"auths": auths}).encode()).decode()
    api.create("Secret", "pull", "default", type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": data})
    about = subject(api, imagePullSecrets=[{"name": "gone"}, {"name": "pull"}])
    assert cluster.logins(about, "registry.example/base@sha256:" + "1" * 64) == [("robot", "s3cret")]
    assert cluster.logins(about, "other.example/base:1") == []


def test_pod_of_the_same_name_lends_no_logins(
    api: KubeApi, cluster: ClusterClient, caplog: pytest.LogCaptureFixture
) -> None:
    subject(api)
    assert cluster.logins(Subject("default", "web", "another", "main", "c"), "registry.example/base:1") == ()
    assert "PodGone" in caplog.text


@pytest.mark.parametrize("user", ["system:node:node-1", "system:serviceaccount:kube-system:nri-restore"])
def test_node_is_that_of_the_credentials_unless_another_is_named(
    api: KubeApi, configured: Callable[..., ClusterClient], monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    api.tokens["node-token"] = user
    host = socket.gethostname().lower()
    api.add_node(host)
    api.add_node("node-2")
    assert configured(node="", token="node-token").look() == ("node-1" if "system:node" in user else host)
    monkeypatch.setenv("NODE_NAME", "node-2")
    assert configured(node="", token="node-token").look() == "node-2"
    assert configured(node="node-1", token="node-token").look() == "node-1"


def test_node_of_a_pods_token_is_the_one_it_claims(api: KubeApi, configured: Callable[..., ClusterClient]) -> None:
    claims = {"authentication.kubernetes.io/node-name": ["node-1"]}
    review = {"status": {"userInfo": {"username": "system:serviceaccount:x:y", "extra": claims}}}
    api.answer("POST", "selfsubjectreviews", Answer(201, review))
    assert configured(node="").look() == "node-1"


def test_node_is_told_what_it_is(api: KubeApi, cluster: ClusterClient) -> None:
    cluster.publish()
    (node,) = api.objects.find(NODES)
    blank = gather("node-1")
    assert from_annotation(node["metadata"]["annotations"][NODE_FACTS], blank) == blank


def test_annotation_is_tried_again_when_the_server_was_away(
    api: KubeApi, cluster: ClusterClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "RETRY_S", 0.01)
    api.answer("PATCH", "/nodes/", Answer(503, "down"))
    cluster.publish()
    deadline = time.monotonic() + 60
    while NODE_FACTS not in api.objects.find(NODES)[0]["metadata"].get("annotations", {}):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "503" in caplog.text


@pytest.mark.parametrize(
    ("settings", "reason", "says"),
    [
        ({"token": "wrong"}, "ApiRefused", "401"),
        ({"node": "node-7"}, "ApiRefused", "there is no node node-7; set cluster.node"),
    ],
)
def test_what_the_server_refuses_is_logged(
    configured: Callable[..., ClusterClient],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    reason: str,
    says: str,
) -> None:
    monkeypatch.setattr(client, "RETRY_S", 3600)
    configured(**settings).publish()
    assert reason in caplog.text and says in caplog.text


def test_rights_that_are_not_given_are_done_without(
    api: KubeApi, cluster: ClusterClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "RETRY_S", 3600)
    caplog.set_level(logging.INFO)
    about = subject(api)
    api.bans += [Ban("patch", "nodes"), Ban("get", "pods")]
    cluster.publish()
    assert cluster.logins(about, "registry.example/base:1") == []
    (record,) = caplog.records
    assert record.levelno == logging.INFO and "patching nodes is not allowed" in record.message


def test_server_with_a_certificate_of_another_authority_is_not_talked_to(
    api: KubeApi, configured: Callable[..., ClusterClient], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = configured()
    document = json.loads((tmp_path / "kubeconfig").read_text())
    del document["clusters"][0]["cluster"]["certificate-authority"]
    (tmp_path / "kubeconfig").write_text(json.dumps(document))
    assert cluster.logins(subject(api), "registry.example/base:1") == ()
    assert "ApiServerUnreachable" in caplog.text and "certificate verify failed" in caplog.text
    assert api.requests == []


def test_server_that_is_away_is_one_warning(
    configured: Callable[..., ClusterClient], api: KubeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = configured()
    text = (tmp_path / "kubeconfig").read_text()
    (tmp_path / "kubeconfig").write_text(text.replace(api.url, "https://127.0.0.1:1"))
    assert cluster.logins(subject(api), "registry.example/base:1") == ()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "ApiServerUnreachable" in record.message


def test_without_a_way_to_a_server_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "run", None)
    cluster = ClusterClient(load(tmp_path / "none").cluster)
    about = Subject("default", "web", "u", "main", "c")
    cluster.publish()
    cluster.announce(about, REFUSED)
    assert cluster.logins(about, "registry.example/base:1") == ()
    assert not cluster._waiting
