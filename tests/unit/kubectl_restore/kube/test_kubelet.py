from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from kubectl_restore.kube.connection import Connection, connect
from kubectl_restore.kube.errors import Forbidden
from kubectl_restore.kube.flags import ClusterFlags
from kubectl_restore.kube.kubelet import KubeletAccess, take
from kubectl_restore.kube.pods import Target, target
from kubectl_restore.kube.via import Via
from shared.errors import RestoreError, Unavailable
from tests.support.kube_api import TLS, KubeApi
from tests.support.kube_backend import Answer, HangUp
from tests.support.kube_memory import MemoryNodes

DIRECT = KubeletAccess(Via.kubelet)


@pytest.fixture
def web(api: KubeApi) -> Target:
    return target(api.add_pod("web"))


def test_checkpoint_through_the_api_server(
    api: KubeApi, nodes: MemoryNodes, connection: Connection, web: Target
) -> None:
    taken = take(connection, web, timeout_s=7)
    assert taken.via is Via.apiserver
    assert nodes.path(taken.path).read_bytes() == b"checkpoint of web"
    (request,) = api.asked("POST", "/proxy/")
    assert request.path == "/api/v1/nodes/node-1/proxy/checkpoint/default/web/main"
    assert request.query["timeout"] == ["7"]


def test_checkpoint_directly_from_the_kubelet(api: KubeApi, connection: Connection, web: Target) -> None:
    taken = take(connection, web, access=DIRECT)
    assert taken.via is Via.kubelet
    (request,) = api.asked("POST", "/checkpoint/", "kubelet")
    assert request.path == "/checkpoint/default/web/main"
    assert request.headers["authorization"] == "Bearer admin-token"
    assert api.asked("POST", "/proxy/") == []


def test_kubelet_is_found_without_reading_nodes(api: KubeApi, connection: Connection, web: Target) -> None:
    api.forbid("get", "nodes")
    with pytest.raises(Unavailable, match=r"the kubelet of node node-1 at 127\.0\.0\.1:10250"):
        take(connection, web, access=DIRECT)
    given = replace(DIRECT, address=f"127.0.0.1:{api.kubelet_port}")
    assert take(connection, web, access=given).via is Via.kubelet


def test_forbidden_proxy_leads_to_the_kubelet_itself(api: KubeApi, connection: Connection, web: Target) -> None:
    api.forbid("create", "nodes/proxy")
    notes: list[str] = []
    assert take(connection, web, note=notes.append).via is Via.kubelet
    assert notes == ["you may not create nodes/proxy; asking the kubelet of node node-1 directly"]


def test_api_server_that_the_kubelet_refuses_is_passed_by(api: KubeApi, connection: Connection, web: Target) -> None:
    api.forbid_at_kubelet("create", "nodes/checkpoint", user=api.kubelet_client)
    notes: list[str] = []
    assert take(connection, web, note=notes.append).via is Via.kubelet
    assert "does not let the API server (kube-apiserver-kubelet-client)" in notes[0]


def test_chosen_way_is_the_only_one(api: KubeApi, connection: Connection, web: Target) -> None:
    api.forbid("create", "nodes/proxy")
    with pytest.raises(Forbidden, match="may not create nodes/proxy") as error:
        take(connection, web, access=KubeletAccess(Via.apiserver))
    role = next(yaml.safe_load_all(error.value.remedy))
    assert {"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["create"]} in role["rules"]
    assert api.asked("POST", "/checkpoint/", "kubelet") == []


def test_both_ways_forbidden_names_the_first_and_the_second(api: KubeApi, connection: Connection, web: Target) -> None:
    api.forbid("create", "nodes/proxy")
    api.forbid_at_kubelet("create", "nodes/checkpoint")
    with pytest.raises(Forbidden, match='does not let "kubernetes-admin" create nodes/checkpoint') as error:
        take(connection, web)
    role = next(yaml.safe_load_all(error.value.remedy))
    assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes/checkpoint"], "verbs": ["create"]}]


def test_kubelet_out_of_reach_leaves_the_first_refusal(api: KubeApi, connection: Connection, web: Target) -> None:
    api.forbid("create", "nodes/proxy")
    away = KubeletAccess(address="127.0.0.1:1")
    with pytest.raises(Forbidden, match=r"may not create nodes/proxy.*\(and the connection to the kubelet") as error:
        take(connection, web, access=away)
    assert "nodes/proxy" in error.value.remedy


def test_someone_impersonated_never_goes_to_the_kubelet(api: KubeApi, kubeconfig: Path, web: Target) -> None:
    api.forbid("create", "nodes/proxy")
    jane = connect(ClusterFlags(kubeconfig=kubeconfig, as_user="jane"))
    with pytest.raises(Forbidden, match='"jane" may not create nodes/proxy'):
        take(jane, web)
    with pytest.raises(RestoreError, match="does not know impersonation"):
        take(jane, web, access=DIRECT)
    assert api.asked("POST", "", "kubelet") == []


def test_kubelet_gets_no_token_over_an_unknown_certificate(api: KubeApi, tmp_path: Path, web: Target) -> None:
    other = tmp_path / "other.pem"
    other.write_text((Path("/etc/ssl/certs/ca-certificates.crt")).read_text())
    connection = connect(ClusterFlags(kubeconfig=api.write_kubeconfig(tmp_path / "config")))
    distrusting = replace(DIRECT, certificate_authority=other)
    with pytest.raises(RestoreError, match="--kubelet-certificate-authority") as error:
        take(connection, web, access=distrusting)
    assert error.value.reason == "KubeletCertificate"
    assert api.asked("POST", "", "kubelet") == []
    assert take(connection, web, access=replace(distrusting, insecure_skip_tls_verify=True)).via is Via.kubelet
    assert take(connection, web, access=replace(DIRECT, certificate_authority=TLS / "ca.pem")).via is Via.kubelet


def test_without_credentials_the_kubelet_is_not_asked(api: KubeApi, tmp_path: Path, web: Target) -> None:
    api.tokens.clear()
    document = api.kubeconfig()
    document["users"][0]["user"] = {}
    file = tmp_path / "anonymous"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(RestoreError, match="neither a bearer token nor a client certificate"):
        take(connect(ClusterFlags(kubeconfig=file)), web, access=DIRECT)


def test_unknown_token_at_the_kubelet(api: KubeApi, kubeconfig: Path, web: Target) -> None:
    stranger = connect(ClusterFlags(kubeconfig=kubeconfig, token="stranger"))
    with pytest.raises(RestoreError, match="the kubelet of node node-1 does not know who you are"):
        take(stranger, web, access=replace(DIRECT, address=f"127.0.0.1:{api.kubelet_port}"))


def test_runtime_that_cannot_is_named_with_its_version(
    api: KubeApi, nodes: MemoryNodes, connection: Connection
) -> None:
    api.add_node("node-2", runtime="containerd://1.7.24")
    said = (
        "checkpointing of default/web/main failed (rpc error: code = Unimplemented desc = method "
        "CheckpointContainer not implemented)"
    )
    nodes.answers.append(Answer(500, said))
    with pytest.raises(RestoreError, match=r"the runtime of node node-2 \(containerd 1\.7\.24\) cannot") as error:
        take(connection, target(api.add_pod("web", node="node-2")))
    assert error.value.reason == "CheckpointUnsupported"


def test_feature_gate_off(api: KubeApi, connection: Connection, web: Target) -> None:
    api.checkpoint_gate = False
    with pytest.raises(RestoreError, match="ContainerCheckpoint") as error:
        take(connection, web)
    assert error.value.reason == "CheckpointGateOff"


def test_silent_kubelet_ends_a_little_after_its_time(
    nodes: MemoryNodes, connection: Connection, web: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_restore.kube.kubelet._GRACE_S", 0.1)
    nodes.checkpoint_s = 3
    with pytest.raises(Unavailable, match="did not answer in time"):
        take(connection, web, timeout_s=0.2)


def test_connection_that_breaks(api: KubeApi, connection: Connection, web: Target) -> None:
    api.answer("POST", "/proxy/", HangUp)
    with pytest.raises(Unavailable, match=r"the connection to the API server .* failed"):
        take(connection, web)


@pytest.mark.parametrize("body", [{"items": []}, {"items": None}, {}, "done", {"items": ["relative.tar"]}])
def test_answer_without_a_path_is_an_error(
    nodes: MemoryNodes, connection: Connection, web: Target, body: object
) -> None:
    nodes.answers.append(Answer(200, body))
    with pytest.raises(RestoreError, match="names no checkpoint") as error:
        take(connection, web)
    assert error.value.reason == "KubeletAnswerInvalid"
