from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kubectl_restore.kube.connection import Connection, connect, path_of
from kubectl_restore.kube.errors import ApiRefused, Forbidden, KubeconfigInvalid
from kubectl_restore.kube.flags import ClusterFlags
from shared.errors import RestoreError, Unavailable
from tests.support.kube_api import KubeApi
from tests.support.kube_backend import Answer, HangUp

PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_object_is_read(api: KubeApi, connection: Connection) -> None:
    api.add_pod("web")
    assert connection.get(path_of("pods", "default", "web"))["metadata"]["name"] == "web"
    assert connection.find(path_of("pods", "default", "other")) is None


def test_who_we_are_is_in_every_request(api: KubeApi, kubeconfig: Path) -> None:
    flags = ClusterFlags(kubeconfig=kubeconfig, as_user="jane", as_groups=["dev", "ops"])
    connect(flags).get(PODS)
    (request,) = api.asked("GET", "/pods$")
    assert request.headers["authorization"] == "Bearer admin-token"
    assert request.headers["impersonate-user"] == "jane"
    assert request.headers["impersonate-group"] == "dev,ops"


def test_wrong_token_is_told_as_such(kubeconfig: Path) -> None:
    with pytest.raises(ApiRefused, match="does not know who you are"):
        connect(ClusterFlags(kubeconfig=kubeconfig, token="wrong")).get(PODS)


def test_missing_right_comes_with_the_role_that_grants_it(api: KubeApi, connection: Connection) -> None:
    api.forbid("list", "pods")
    with pytest.raises(Forbidden, match='"kubernetes-admin" may not list pods in namespace default') as error:
        connection.get(PODS)
    role, binding = yaml.safe_load_all(error.value.remedy)
    assert role["kind"] == "Role"
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    assert binding["subjects"][0]["name"] == "kubernetes-admin"


def test_refusal_by_admission_stays_in_its_own_words(api: KubeApi, connection: Connection) -> None:
    said = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": hostPath volumes'
    body = {"kind": "Status", "message": said, "reason": "Forbidden", "code": 403}
    api.answer("POST", "/pods$", Answer(403, body))
    with pytest.raises(Forbidden, match="hostPath volumes") as error:
        connection.call("POST", PODS, {})
    assert error.value.remedy == ""


def test_closed_port_is_told_as_kubectl_does(kubeconfig: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unavailable, match="was refused; did you specify the right host or port"):
        connect(ClusterFlags(kubeconfig=kubeconfig, server=f"https://127.0.0.1:{port}")).get(PODS)


def test_name_that_does_not_resolve_is_told_as_such(kubeconfig: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be resolved"):
        connect(ClusterFlags(kubeconfig=kubeconfig, server="https://nowhere.invalid")).get(PODS)


def test_connection_that_breaks_is_told_as_such(api: KubeApi, connection: Connection) -> None:
    api.answer("GET", "/pods$", HangUp)
    with pytest.raises(Unavailable, match=r"the connection to the API server .* failed"):
        connection.get(PODS)


def test_request_timeout_is_kept(kubeconfig: Path, silent_port: int) -> None:
    flags = ClusterFlags(kubeconfig=kubeconfig, server=f"http://127.0.0.1:{silent_port}", request_timeout="200ms")
    with pytest.raises(Unavailable, match="did not answer in time"):
        connect(flags).get(PODS)


def test_request_timeout_that_is_none_is_refused(kubeconfig: Path) -> None:
    with pytest.raises(KubeconfigInvalid, match="--request-timeout soon"):
        connect(ClusterFlags(kubeconfig=kubeconfig, request_timeout="soon"))


def test_server_with_an_unknown_certificate_gets_nothing(api: KubeApi, tmp_path: Path) -> None:
    document = api.kubeconfig()
    del document["clusters"][0]["cluster"]["certificate-authority"]
    file = tmp_path / "no-ca"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(RestoreError, match=r"certificate .* is not trusted") as error:
        connect(ClusterFlags(kubeconfig=file)).get(PODS)
    assert error.value.reason == "ApiServerCertificate"
    assert api.requests == []


@pytest.mark.filterwarnings("error")
def test_insecure_flag_asks_no_questions(api: KubeApi, tmp_path: Path) -> None:
    document = api.kubeconfig()
    del document["clusters"][0]["cluster"]["certificate-authority"]
    file = tmp_path / "no-ca"
    file.write_text(yaml.safe_dump(document))
    assert connect(ClusterFlags(kubeconfig=file, insecure_skip_tls_verify=True)).get(PODS)["items"] == []


def test_answer_that_is_no_object_is_an_error(api: KubeApi, connection: Connection) -> None:
    api.answer("GET", "/pods$", Answer(200, "<html>a proxy's login page</html>"))
    with pytest.raises(ApiRefused, match="login page"):
        connection.get(PODS)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("nodes", "", "n1", "proxy"), "/api/v1/nodes/n1/proxy"),
        (("pods", "a", "b"), "/api/v1/namespaces/a/pods/b"),
        (("pods", "a", "b/../c"), "/api/v1/namespaces/a/pods/b%2F..%2Fc"),
    ],
)
def test_paths(arguments: tuple[str, ...], path: str) -> None:
    assert path_of(*arguments) == path


def test_path_of_a_group() -> None:
    assert path_of("leases", "a", "b", group="coordination.k8s.io") == (
        "/apis/coordination.k8s.io/v1/namespaces/a/leases/b"
    )
