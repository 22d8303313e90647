"""Finding the API server: kubeconfigs as kubeadm and k3s write them, and a pod's service account."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nri_plugin.cluster import access
from nri_plugin.cluster.access import Access, find, possible
from nri_plugin.config import Cluster
from shared.errors import RestoreError

Write = Callable[..., Cluster]


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Write:
    """A kubelet's kubeconfig, as kubeadm writes it, with changes to cluster and user."""

    def write(text: str | None = None, /, cluster: Any = None, user: Any = None) -> Cluster:
        place = {"server": "https://10.0.0.1:6443", "certificate-authority-data": base64.b64encode(b"CA").decode()}
        pem = "/var/lib/kubelet/pki/kubelet-client-current.pem"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "default-cluster", "cluster": place if cluster is None else cluster}],
            "users": [
                {
                    "name": "default-auth",
                    "user": {"client-certificate": pem, "client-key": pem} if user is None else user,
                }
            ],
            "contexts": [
                {"name": "default", "context": {"cluster": "default-cluster", "user": "default-auth"}},
            ],
            "current-context": "default",
        }
        (tmp_path / "kubelet.conf").write_text(yaml.safe_dump(document) if text is None else text)
        return Cluster(kubeconfig=tmp_path / "kubelet.conf")

    return write


def refusal(settings: Cluster, folder: Path) -> str:
    with pytest.raises(RestoreError) as refused:
        find(settings, folder, {})
    assert refused.value.reason == "KubeconfigInvalid"
    return refused.value.sentence


def test_kubeconfig_of_a_kubelet(kubeconfig: Write, tmp_path: Path) -> None:
    found = find(kubeconfig(), tmp_path, {})
    pem = Path("/var/lib/kubelet/pki/kubelet-client-current.pem")
    assert found == Access("https://10.0.0.1:6443", tmp_path / "certificate-authority", None, pem, pem)
    assert (tmp_path / "certificate-authority").read_bytes() == b"CA"


def test_paths_are_relative_to_the_kubeconfig_and_inline_comes_first(kubeconfig: Write, tmp_path: Path) -> None:
    user = {"client-certificate": "kubelet.crt", "client-key": "x", "client-key-data": base64.b64encode(b"K").decode()}
    found = find(
        kubeconfig(cluster={"server": "http://x", "certificate-authority": "/etc/ca"}, user=user), tmp_path, {}
    )
    assert found == Access("http://x", Path("/etc/ca"), None, tmp_path / "kubelet.crt", tmp_path / "client-key")


@pytest.mark.parametrize("user", [{"token": "secret"}, {"tokenFile": "token"}])
def test_token(kubeconfig: Write, tmp_path: Path, user: dict[str, str]) -> None:
    (tmp_path / "token").write_text("secret\n")
    assert find(kubeconfig(user=user), tmp_path, {}).token == "secret"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "it is no YAML"),
        ("- a", "there is no context None"),
        ("", "there is no context None"),
        ("current-context: x\ncontexts: 5", "there is no context x"),
        ("current-context: x\ncontexts: [{name: x, context: {cluster: y}}]", "there is no cluster y"),
    ],
)
def test_kubeconfig_that_is_none_is_named(kubeconfig: Write, tmp_path: Path, text: str, says: str) -> None:
    sentence = refusal(kubeconfig(text), tmp_path)
    assert sentence.startswith(f"{tmp_path}/kubelet.conf: ") and says in sentence


def test_what_cannot_be_used_is_said(kubeconfig: Write, tmp_path: Path) -> None:
    assert "no URL" in refusal(kubeconfig(cluster={"server": "10.0.0.1"}), tmp_path)
    assert "no URL" in refusal(kubeconfig(cluster={}), tmp_path)
    assert "programs that get one are not run" in refusal(kubeconfig(user={"exec": {"command": "aws"}}), tmp_path)
    wrong = {"server": "https://x", "certificate-authority-data": "!"}
    assert "certificate-authority-data is no base64" in refusal(kubeconfig(cluster=wrong), tmp_path)
    assert "cannot be read" in refusal(Cluster(kubeconfig=tmp_path / "none"), tmp_path)
    assert "set cluster.kubeconfig" in refusal(Cluster(), tmp_path)


@pytest.mark.parametrize(
    ("host", "server"), [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
def test_service_account_of_the_daemons_own_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, server: str
) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}
    monkeypatch.setattr(access, "SERVICE_ACCOUNT", tmp_path)
    assert not possible(Cluster(), environ)
    (tmp_path / "token").write_text("secret\n")
    assert possible(Cluster(), environ)
    assert find(Cluster(), tmp_path, environ) == Access(server, tmp_path / "ca.crt", token="secret")


def test_service_account_is_found_under_its_other_name(tmp_path: Path) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", access.VARIABLE: str(tmp_path)}
    assert not possible(Cluster(), environ)
    (tmp_path / "token").write_text("secret\n")
    found = find(Cluster(), tmp_path, environ)
    assert (found.ca, found.token) == (tmp_path / "ca.crt", "secret")


def test_without_either_there_is_no_way() -> None:
    assert not possible(Cluster(), {})
    assert possible(Cluster(kubeconfig=Path("/etc/kubernetes/kubelet.conf")), {})
