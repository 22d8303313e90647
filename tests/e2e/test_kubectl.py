"""The real kubectl runs kubectl-restore as its plugin, against the stub API server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from kubectl_restore.cli import application
from tests.e2e.kubectl import kubectl
from tests.e2e.node.places import CHECKOUT
from tests.support.kube_api import TLS, TOKEN, KubeApi
from tests.support.kube_memory import CHECKPOINTS, MemoryNodes


class Kubectl:
    """A shell's view: PATH with kubectl and our two programs, KUBECONFIG, HOME."""

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        programs = folder / "bin"
        programs.mkdir()
        (programs / "kubectl").symlink_to(kubectl())
        for name, module in (("kubectl-restore", "cli"), ("kubectl_complete-restore", "completion")):
            # What pip makes of [project.scripts].
            text = f"#!{sys.executable}\nfrom kubectl_restore.{module} import main\nmain()\n"
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.programs = programs
        self.env = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "KUBECONFIG": str(kubeconfig),
            "PYTHONPATH": str(CHECKOUT),
        }

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", *words], env={**self.env, **env}, capture_output=True, text=True, timeout=300, check=False
        )

    def __call__(self, *words: str, **env: str) -> str:
        """Standard output; the command must succeed."""
        done = self.run(*words, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    with KubeApi(MemoryNodes(tmp_path / "node")) as api:
        api.add_pod("web", "main", "side")
        api.add_pod("shop-1", namespace="shop")
        yield api


@pytest.fixture
def plugin(api: KubeApi, tmp_path: Path) -> Kubectl:
    return Kubectl(tmp_path, api.write_kubeconfig(tmp_path / "kubeconfig"))


def test_kubectl_finds_the_plugin(plugin: Kubectl) -> None:
    done = plugin.run("plugin", "list")
    assert str(plugin.programs / "kubectl-restore") in done.stdout.splitlines()
    # The completion helper is no plugin, and nothing shadows ours.
    assert "kubectl_complete" not in done.stdout
    assert "warning" not in (done.stdout + done.stderr).lower()


def test_help_is_the_plugins(plugin: Kubectl) -> None:
    assert plugin("restore", "--help").startswith("Usage: kubectl restore [OPTIONS] COMMAND")
    assert plugin("restore", "checkpoint", "-h").startswith("Usage: kubectl restore checkpoint")


def test_exit_status_and_error_come_through(plugin: Kubectl) -> None:
    done = plugin.run("restore", "checkpoint", "gone")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith('error: there is no pod "gone" in namespace default')
    assert plugin.run("restore", "checkpoint").returncode == 2


def test_kubeconfig_from_the_environment(plugin: Kubectl) -> None:
    assert f"node/node-1:{CHECKPOINTS}/" in plugin("restore", "checkpoint", "web", "-c", "main", "-o", "name")


def test_kubeconfig_context_and_namespace_as_flags_after_the_verb(
    api: KubeApi, plugin: Kubectl, tmp_path: Path
) -> None:
    other = api.write_kubeconfig(tmp_path / "other", context="second", namespace="shop")
    flags = ["--kubeconfig", str(other), "--context", "second"]
    printed = plugin("restore", "checkpoint", "shop-1", *flags, "-o", "wide", KUBECONFIG="/nowhere")
    assert printed.splitlines()[1].split()[:2] == ["shop", "shop-1"]
    printed = plugin("restore", "checkpoint", "web", "-c", "side", *flags, "-n", "default", "-o", "wide")
    assert printed.splitlines()[1].split()[:3] == ["default", "web", "side"]


def test_flags_before_the_plugins_name_are_refused_by_kubectl(plugin: Kubectl) -> None:
    """kubectl cannot tell a plugin's flags from its own there; docs/kubectl.md says so."""
    done = plugin.run("--context", "stub", "restore", "checkpoint", "web")
    assert done.returncode != 0
    assert "flags cannot be placed before plugin name: --context" in done.stderr


def test_impersonation_is_kubectls(api: KubeApi, plugin: Kubectl) -> None:
    api.forbid("get", "pods", user="jane")
    words = ["--as", "jane", "--as-group", "dev", "--as-group", "ops"]
    ours = plugin.run("restore", "checkpoint", "web", *words)
    theirs = plugin.run("get", "pod", "web", *words)
    assert ours.returncode == theirs.returncode == 1
    asked = api.asked("GET", "/pods/web$")
    assert len(asked) >= 2
    for request in asked:
        assert request.headers["impersonate-user"] == "jane"
        assert request.headers["impersonate-group"] == "dev,ops"


def test_every_request_impersonates(api: KubeApi, plugin: Kubectl, tmp_path: Path) -> None:
    """Taking a checkpoint and bringing it here asks for pods, leases, nodes, the node's proxy and exec."""
    archive = str(tmp_path / "a.tar")
    words = [
        "--as",
        "jane",
        "--as-group",
        "dev",
        "--as-group",
        "ops",
        "--as-uid",
        "7",
        "--as-user-extra",
        "scopes=view",
    ]
    plugin("restore", "checkpoint", "web", "-c", "main", "--save", archive, "-q", *words)
    asked = [each for each in api.requests if each.server == "api"]
    kinds = {each.path.partition("/v1/")[2].replace("namespaces/default/", "").partition("/")[0] for each in asked}
    assert {"pods", "leases", "nodes"} <= kinds and any(each.path.endswith("/exec") for each in asked)
    for request in asked:
        assert request.headers["impersonate-user"] == "jane", request.path
        assert request.headers["impersonate-group"] == "dev,ops", request.path
        assert (request.headers["impersonate-uid"], request.headers["impersonate-extra-scopes"]) == ("7", "view")


def test_flags_stand_in_for_a_kubeconfig(api: KubeApi, plugin: Kubectl, tmp_path: Path) -> None:
    words = ["--server", api.url, "--token", TOKEN, "-n", "shop", "--kubeconfig", "/dev/null"]
    trust = ["--certificate-authority", str(TLS / "ca.pem")]
    for more in (trust, ["--insecure-skip-tls-verify"], [*trust, "--tls-server-name", "localhost"]):
        assert plugin("get", "pods", "-o", "name", *words, *more) == "pod/shop-1\n"
        assert plugin("restore", "checkpoint", "shop-1", "-o", "name", *words, *more).startswith("node/node-1:")
    for more in ([], [*trust, "--tls-server-name", "other.example"], [*trust, "--token", "wrong"]):
        assert plugin.run("get", "pods", *words, *more).returncode == 1
        assert plugin.run("restore", "checkpoint", "shop-1", *words, *more).returncode == 1


def test_user_and_cluster_of_the_kubeconfig_are_chosen_apart(api: KubeApi, plugin: Kubectl, tmp_path: Path) -> None:
    api.tokens["other-token"] = "other"
    config = api.kubeconfig()
    config["users"].append({"name": "second", "user": {"token": "other-token"}})
    config["clusters"].append({**config["clusters"][0], "name": "again"})
    file = tmp_path / "two"
    file.write_text(json.dumps(config))
    api.forbid("get", "pods", user="other")
    for words in (["get", "pod", "web"], ["restore", "checkpoint", "web", "-c", "main"]):
        assert plugin.run(*words, "--kubeconfig", str(file), "--cluster", "again").returncode == 0
        refused = plugin.run(*words, "--kubeconfig", str(file), "--cluster", "again", "--user", "second")
        assert refused.returncode == 1 and '"other"' in refused.stderr


def test_every_flag_about_reaching_a_cluster_is_taken(plugin: Kubectl) -> None:
    listed = set(re.findall(r"^ +(?:-\w, )?--([a-z-]+)=", plugin("options"), re.MULTILINE))
    assert {"as", "context", "namespace"} <= listed
    assert listed - parameters() == {
        *("cache-dir", "disable-compression", "match-server-version", "warnings-as-errors"),
        *("log-flush-frequency", "profile", "profile-output", "v", "vmodule"),
        *("username", "password"),  # no API server since 1.19 takes them
    }


def parameters() -> set[str]:
    command = typer.main.get_command(application())
    assert isinstance(command, TyperGroup)
    return {name.removeprefix("--") for each in command.commands["checkpoint"].params for name in each.opts}


@pytest.mark.parametrize(
    ("words", "choices"),
    [
        (["restore", "chec"], {"checkpoint"}),
        (["restore", "checkpoint", "w"], {"web"}),
        (["restore", "checkpoint", "pod/w"], {"pod/web"}),
        (["restore", "checkpoint", "-n", "shop", ""], {"shop-1"}),
        (["restore", "checkpoint", "web", "-c", ""], {"main", "side"}),
        (["restore", "checkpoint", "web", "--container", "s"], {"side"}),
        (["restore", "checkpoint", "web", "--via", "ku"], {"kubelet"}),
        (["restore", "checkpoint", "web", "-n", "def"], {"default"}),
        (["restore", "checkpoint", "web", "--context", ""], {"stub"}),
        (["restore", "checkpoint", "gone", "-c", ""], set()),
        (["restore", "build", "pod/"], {"pod/web"}),
        (["restore", "build", "node/"], {f"node/node-1:{CHECKPOINTS}/"}),
    ],
)
def test_completion(plugin: Kubectl, words: list[str], choices: set[str]) -> None:
    lines = plugin("__complete", *words).splitlines()
    offered = {line.partition("\t")[0] for line in lines if not line.startswith(":")}
    assert offered - {"check"} == choices


def test_verbs_are_completed_with_what_they_do(plugin: Kubectl) -> None:
    lines = plugin("__complete", "restore", "").splitlines()
    assert any(line.startswith("checkpoint\tCheckpoint a running container") for line in lines)
    # 4: the shell must not offer files where a verb is wanted.
    assert lines[-1] == ":4"


def test_completion_without_a_cluster_is_silent(plugin: Kubectl, tmp_path: Path) -> None:
    done = plugin.run("__complete", "restore", "checkpoint", "", KUBECONFIG="/nowhere")
    assert done.stdout == ":4\n"
    assert "Traceback" not in done.stderr


def test_stub_answers_kubectl_as_a_cluster_does(api: KubeApi, plugin: Kubectl, tmp_path: Path) -> None:
    """Tests of other verbs lean on the stub: kubectl's own client is the judge of it."""
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: echo, labels: {app: echo}}\n"
        "spec: {containers: [{name: main, image: busybox}]}\n"
    )
    plugin("create", "--dry-run=server", "--validate=false", "-f", str(manifest))
    assert "echo" not in plugin("get", "pods", "-o", "name")
    plugin("create", "--validate=false", "-f", str(manifest))
    plugin("wait", "--for=condition=Ready", "pod/echo", "--timeout=20s")
    assert plugin("get", "pods", "-l", "app=echo", "-o", "name") == "pod/echo\n"
    assert plugin("exec", "echo", "--", "printf", "a b") == "a b"
    assert plugin("logs", "echo") == "1\n2\n3\n"
    plugin("label", "pod", "echo", "colour=blue")
    assert plugin("get", "pod", "echo", "-o", "jsonpath={.metadata.labels.colour}") == "blue"
    plugin("delete", "pod", "echo", "--timeout=20s")
    done = plugin.run("get", "pod", "echo")
    assert done.stderr == 'Error from server (NotFound): pods "echo" not found\n'
    api.forbid("list", "pods")
    done = plugin.run("get", "pods")
    assert done.stderr == (
        'Error from server (Forbidden): pods is forbidden: User "kubernetes-admin" cannot list resource "pods" '
        'in API group "" in the namespace "default"\n'
    )
    assert plugin.run("get", "nodes", "--token", "wrong").stderr.startswith("error: You must be logged in")
