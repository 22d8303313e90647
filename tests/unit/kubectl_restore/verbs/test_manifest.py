from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.checkpoints import SyntheticDump, containerd
from tests.support.inspected import kubelet_spec
from tests.support.kube_api import KubeApi
from tests.unit.kubectl_restore.conftest import WriteCheckpoint
from tests.unit.kubectl_restore.verbs.conftest import Run

IMAGE = "registry.example/ck:1"


@pytest.fixture
def run(command: Run, monkeypatch: pytest.MonkeyPatch, kubeconfig: Path) -> Run:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    return partial(command, "manifest")


@pytest.fixture
def archive(write_checkpoint: WriteCheckpoint) -> Path:
    return write_checkpoint(containerd(SyntheticDump.of_processes(), spec=kubelet_spec()))


def name_of(run: Run, archive: Path) -> str:
    return str(yaml.safe_load(run(archive)[1])["spec"]["containers"][0]["name"])


def test_pod_of_an_archive(run: Run, archive: Path) -> None:
    status, out, err = run(archive, "--image", IMAGE, "--name", "again")
    assert (status, err) == (0, "")
    pod = yaml.safe_load(out)
    assert pod["metadata"]["name"] == "again" and pod["spec"]["containers"][0]["image"] == IMAGE
    assert "# " in out


def test_json_has_its_reasons_on_standard_error(run: Run, archive: Path) -> None:
    status, out, err = run(archive, "-o", "json")
    assert status == 0
    assert json.loads(out) == yaml.safe_load(run(archive)[1])
    assert "spec.runtimeClassName: " in err


def test_pod_like_one_of_the_cluster(run: Run, archive: Path, api: KubeApi) -> None:
    api.add_pod("web", name_of(run, archive))
    status, out, _ = run(archive, "--from-pod", "pod/web")
    pod = yaml.safe_load(out)
    assert status == 0 and pod["metadata"]["name"] == "web-restored"
    assert "nodeName" not in pod["spec"] and "status" not in pod and "uid" not in pod["metadata"]


def test_deployment_of_the_cluster_gets_a_patch(run: Run, archive: Path, api: KubeApi) -> None:
    containers = [{"name": name_of(run, archive), "image": "app:1"}]
    api.create("Deployment", "web", "default", spec={"replicas": 1, "template": {"spec": {"containers": containers}}})
    status, out, _ = run(archive, "--from-pod", "deployment/web", "--image", IMAGE)
    assert status == 0 and out.startswith("# kubectl patch deployment web -n default --type merge")
    assert yaml.safe_load(out)["spec"]["template"]["spec"]["containers"][0]["image"] == IMAGE


def test_pod_of_a_file(run: Run, archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(run(archive, "--image", IMAGE, "--name", "web")[1])
    status, out, _ = run(archive, "-f", path, "--image", IMAGE, "--name", "web")
    assert status == 0 and yaml.safe_load(out) == yaml.safe_load(path.read_text())
    path.write_text("kind: Service\n")
    status, out, err = run(archive, "-f", path)
    assert (status, out) == (1, "") and "Service" in err


def test_what_is_refused(run: Run, archive: Path, api: KubeApi) -> None:
    assert run(archive, "--from-pod", "web", "-f", "x")[0] == 2
    status, out, err = run(archive, "--from-pod", "web")
    assert (status, out) == (1, "") and 'no pod "web"' in err
    assert run("/nowhere.tar") == (1, "", "error: there is no file /nowhere.tar\n")


def test_generated_pod_is_one_of_the_client_librarys(run: Run, archive: Path) -> None:
    """Every field is known to the API's own model, and nothing that it requires is missing."""
    from kubernetes import client

    def known(value: Any, kind: str) -> None:
        if kind.startswith("list["):
            for each in value:
                known(each, kind[5:-1])
        elif kind.startswith(("V1", "Core")):
            model = getattr(client, kind)
            names = {wire: name for name, wire in model.attribute_map.items()}
            assert set(value) <= set(names), (kind, set(value) - set(names))
            model(**{names[key]: inner for key, inner in value.items()})
            for key, inner in value.items():
                known(inner, model.openapi_types[names[key]])

    for words in ((), ("--annotate",)):
        known(yaml.safe_load(run(archive, "--image", IMAGE, *words)[1]), "V1Pod")
    with pytest.raises((AssertionError, ValueError)):
        known({"spec": {"containers": [], "other": 1}}, "V1Pod")
