from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubectl_restore.kube.errors import KubeconfigInvalid
from kubectl_restore.kube.flags import ClusterFlags
from kubectl_restore.kube.kubeconfig import context_names, load


def write(path: Path, name: str, *, current: str | None = None, namespace: str = "", **more: Any) -> Path:
    context = {"cluster": name, "user": name} | ({"namespace": namespace} if namespace else {})
    document = {
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.test:6443", **more.get("cluster", {})}}],
        "users": [{"name": name, "user": more.get("user", {"token": f"token-of-{name}"})}],
        "contexts": [{"name": name, "context": context}],
        "current-context": name if current is None else current,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def token(settings: Any) -> str:
    return str(settings.configuration.get_api_key_with_prefix("BearerToken"))


def test_home_is_read_when_nothing_is_said(tmp_path: Path) -> None:
    write(tmp_path / ".kube" / "config", "home", namespace="mine")
    settings = load(ClusterFlags(), {"HOME": str(tmp_path)})
    assert settings.configuration.host == "https://home.test:6443"
    assert settings.namespace == "mine"
    assert token(settings) == "Bearer token-of-home"


def test_first_of_several_files_wins(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", "a"), write(tmp_path / "b", "b")
    environ = {"KUBECONFIG": f"{tmp_path / 'missing'}{os.pathsep}{first}{os.pathsep}{second}"}
    assert load(ClusterFlags(), environ).configuration.host == "https://a.test:6443"
    assert load(ClusterFlags(context="b"), environ).configuration.host == "https://b.test:6443"
    assert context_names(None, environ) == ["a", "b"]


def test_value_of_the_first_file_is_not_overwritten_by_a_later_one(tmp_path: Path) -> None:
    first = write(tmp_path / "a", "same", cluster={"server": "https://first.test"})
    second = write(tmp_path / "b", "same", cluster={"server": "https://second.test"})
    settings = load(ClusterFlags(), {"KUBECONFIG": f"{first}{os.pathsep}{second}"})
    assert settings.configuration.host == "https://first.test"


def test_current_context_may_come_from_a_later_file(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", "a", current=""), write(tmp_path / "b", "b", current="a")
    settings = load(ClusterFlags(), {"KUBECONFIG": f"{first}{os.pathsep}{second}"})
    assert settings.configuration.host == "https://a.test:6443"


def test_flag_beats_the_environment(tmp_path: Path) -> None:
    chosen = write(tmp_path / "chosen", "chosen")
    other = write(tmp_path / "other", "other")
    settings = load(ClusterFlags(kubeconfig=chosen), {"KUBECONFIG": str(other)})
    assert settings.configuration.host == "https://chosen.test:6443"


def test_certificates_are_relative_to_their_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "ca.pem").write_text("a CA")
    file = write(tmp_path / "deep" / "config", "x", cluster={"certificate-authority": "ca.pem"})
    settings = load(ClusterFlags(kubeconfig=file), {})
    assert settings.configuration.ssl_ca_cert == str(tmp_path / "deep" / "ca.pem")


def test_overrides_replace_what_the_context_says(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", "a"), write(tmp_path / "b", "b")
    environ = {"KUBECONFIG": f"{first}{os.pathsep}{second}"}
    mixed = load(ClusterFlags(cluster="b", namespace="there"), environ)
    assert (mixed.configuration.host, token(mixed), mixed.namespace) == (
        "https://b.test:6443",
        "Bearer token-of-a",
        "there",
    )
    other_user = load(ClusterFlags(user="b"), environ)
    assert (other_user.configuration.host, token(other_user)) == ("https://a.test:6443", "Bearer token-of-b")
    flags = ClusterFlags(server="10.0.0.1:6443", token="given", insecure_skip_tls_verify=True, tls_server_name="api")
    replaced = load(flags, environ)
    assert (replaced.configuration.host, token(replaced)) == ("https://10.0.0.1:6443", "Bearer given")
    assert replaced.configuration.verify_ssl is False
    assert replaced.configuration.tls_server_name == "api"


def test_insecure_flag_drops_the_kubeconfigs_authority(tmp_path: Path) -> None:
    file = write(tmp_path / "a", "a", cluster={"certificate-authority": "not-there.pem"})
    assert load(ClusterFlags(kubeconfig=file, insecure_skip_tls_verify=True), {}).configuration.ssl_ca_cert is None
    with pytest.raises(KubeconfigInvalid, match=r"not-there\.pem"):
        load(ClusterFlags(kubeconfig=file), {})


def test_server_alone_is_enough(tmp_path: Path) -> None:
    settings = load(ClusterFlags(server="http://127.0.0.1:8001"), {"HOME": str(tmp_path)})
    assert settings.configuration.host == "http://127.0.0.1:8001"
    assert settings.namespace == "default"


@pytest.mark.parametrize(
    ("flags", "headers"),
    [
        (ClusterFlags(), ()),
        (
            ClusterFlags(as_user="jane", as_groups=["dev", "ops"], as_uid="7"),
            (
                ("Impersonate-User", "jane"),
                ("Impersonate-Group", "dev"),
                ("Impersonate-Group", "ops"),
                ("Impersonate-Uid", "7"),
            ),
        ),
    ],
)
def test_impersonation_becomes_headers(tmp_path: Path, flags: ClusterFlags, headers: tuple[Any, ...]) -> None:
    write(tmp_path / ".kube" / "config", "home")
    assert load(flags, {"HOME": str(tmp_path)}).impersonate == headers


def test_impersonation_of_the_kubeconfig_is_kept(tmp_path: Path) -> None:
    user = {"token": "t", "as": "robot", "as-groups": ["g"], "as-user-extra": {"reason": ["test"]}}
    file = write(tmp_path / "a", "a", user=user)
    assert load(ClusterFlags(kubeconfig=file), {}).impersonate == (
        ("Impersonate-User", "robot"),
        ("Impersonate-Group", "g"),
        ("Impersonate-Extra-reason", "test"),
    )


def test_extra_of_the_flags_is_in_the_headers_place_and_encoding(tmp_path: Path) -> None:
    user = {"token": "t", "as-user-extra": {"reason": ["test"]}}
    flags = ClusterFlags(
        kubeconfig=write(tmp_path / "a", "a", user=user),
        as_user="jane",
        as_user_extra=["scopes=view", "acme.com/project=a=b", "scopes=edit"],
    )
    assert load(flags, {}).impersonate == (
        ("Impersonate-User", "jane"),
        ("Impersonate-Extra-scopes", "view"),
        ("Impersonate-Extra-scopes", "edit"),
        ("Impersonate-Extra-acme.com%2Fproject", "a=b"),
    )
    with pytest.raises(KubeconfigInvalid, match="--as-user-extra view is not KEY=VALUE"):
        load(replace(flags, as_user_extra=["view"]), {})


def test_group_without_a_user_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a", "a")
    with pytest.raises(KubeconfigInvalid, match="add --as"):
        load(ClusterFlags(kubeconfig=file, as_groups=["dev"]), {})


def test_token_of_a_credential_plugin_is_used(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    status = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"fresh"}}'
    plugin.write_text(f"#!/bin/sh\necho '{status}'\n")
    plugin.chmod(0o755)
    entry = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "args": []}}
    assert token(load(ClusterFlags(kubeconfig=write(tmp_path / "a", "a", user=entry)), {})) == "Bearer fresh"


def test_credential_plugin_that_fails_is_named(tmp_path: Path) -> None:
    entry = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "false", "args": []}}
    with pytest.raises(KubeconfigInvalid, match="plugin false gave no credentials"):
        load(ClusterFlags(kubeconfig=write(tmp_path / "a", "a", user=entry)), {})


def test_pod_without_kubeconfig_uses_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in (("token", "of-the-pod"), ("ca.crt", "a CA"), ("namespace", "pods\n")):
        (tmp_path / name).write_text(content)
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr("kubectl_restore.kube.kubeconfig.SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    environ = {"HOME": str(tmp_path / "nobody"), "KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    settings = load(ClusterFlags(), environ)
    assert settings.configuration.host == "https://10.96.0.1:443"
    assert token(settings).lower() == "bearer of-the-pod"
    assert settings.namespace == "pods"
    assert token(load(ClusterFlags(token="other"), environ)) == "Bearer other"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (ClusterFlags(context="c"), 'context "c" does not exist in .*; there are: a'),
        (ClusterFlags(cluster="c"), 'no cluster "c"; there are: a'),
        (ClusterFlags(user="c"), 'no user "c"; there are: a'),
        (ClusterFlags(kubeconfig=Path("/no/such/file")), "there is no kubeconfig /no/such/file"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(tmp_path: Path, flags: ClusterFlags, sentence: str) -> None:
    write(tmp_path / ".kube" / "config", "a")
    with pytest.raises(KubeconfigInvalid, match=sentence):
        load(flags, {"HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("clusters: [", "cannot be read as a kubeconfig"),
        ("- a\n- b\n", "is not a kubeconfig"),
        ("clusters: {a: b}\n", "is not a kubeconfig"),
        ("users: [a]\n", "is not a kubeconfig"),
        ("", "has no current context"),
        ("current-context: x\ncontexts: [{name: x, context: {}}]\n", "has no server"),
    ],
)
def test_broken_kubeconfig_is_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "config").write_text(content)
    with pytest.raises(KubeconfigInvalid, match=sentence):
        load(ClusterFlags(kubeconfig=tmp_path / "config"), {})


def test_no_kubeconfig_at_all(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigInvalid, match="there is no kubeconfig"):
        load(ClusterFlags(), {"HOME": str(tmp_path)})
