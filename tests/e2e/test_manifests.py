"""The kustomize base and the Helm chart, rendered by the real programs: valid, alike, no more rights than needed."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from nri_plugin.daemonset.__main__ import DEFAULT_RUNTIME, DRAIN_S, ROLES
from nri_plugin.daemonset.places import CURRENT, FILES
from shared.contract import HANDLER
from shared.errors import CommandFailed
from shared.run import run
from tests.e2e.helm import helm
from tests.e2e.kubectl import kubectl
from tests.e2e.node.places import CHECKOUT

Objects = dict[tuple[str, str], dict[str, Any]]
KUSTOMIZE = CHECKOUT / "packaging/kubernetes"
CHART = CHECKOUT / "packaging/helm/nri-restore"
IMAGE = ("image.repository=nri-restore",)
_MAJOR, _MINOR = map(int, kubernetes_validate.latest_version().split(".")[:2])
RELEASES = ["1.30", *(f"{_MAJOR}.{_MINOR - older}" for older in range(3))]


def objects(text: str) -> Objects:
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text) if each}


def kustomized(folder: Path) -> Objects:
    return objects(run([kubectl(), "kustomize", folder], timeout_s=300).stdout)


def templated(*values: str) -> Objects:
    words = [word for each in (*IMAGE, *values) for word in ("--set", each)]
    return objects(run([helm(), "template", "nri-restore", CHART, "-n", "nri-restore", *words], timeout_s=300).stdout)


def base(tmp_path: Path) -> Path:
    return KUSTOMIZE / "base"


def uninstall(tmp_path: Path) -> Path:
    return KUSTOMIZE / "uninstall"


def with_components(tmp_path: Path, *names: str) -> Path:
    there = os.path.relpath(KUSTOMIZE, tmp_path)
    document = {"resources": [f"{there}/base"], "components": [f"{there}/{name}" for name in names]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(document))
    return tmp_path


def with_all_rights(tmp_path: Path) -> Path:
    return with_components(tmp_path, "pull-secrets", "node-facts")


def as_default_runtime(tmp_path: Path) -> Path:
    return with_components(tmp_path, "default-runtime")


CASES = [
    (base, ()),
    (uninstall, ("uninstall=true",)),
    (with_all_rights, ("rbac.pullSecrets=true", "rbac.nodeFacts=true")),
    (as_default_runtime, ("defaultRuntime=true",)),
]


@pytest.mark.parametrize(("folder", "values"), CASES, ids=["base", "uninstall", "all rights", "default runtime"])
def test_kustomize_and_helm_say_the_same_and_kubernetes_takes_it(
    tmp_path: Path, folder: Any, values: tuple[str, ...]
) -> None:
    ours, charts = kustomized(folder(tmp_path)), templated(*values)
    for release in RELEASES:
        for each in (*ours.values(), *charts.values()):
            assert kubernetes_validate.validate(each, release, strict=True) == release
    # Helm makes the namespace when it is told to, and starts pods anew when their files changed.
    del ours["Namespace", "nri-restore"]
    charts["DaemonSet", "nri-restore"]["spec"]["template"]["metadata"].pop("annotations", None)
    assert charts == ours


def test_rights_are_events_only_unless_more_is_asked_for(tmp_path: Path) -> None:
    role = "ClusterRole", "nri-restore"
    events = {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]}
    assert kustomized(base(tmp_path))[role]["rules"] == [events]
    more = kustomized(with_all_rights(tmp_path))[role]["rules"]
    assert [(each["resources"], each["verbs"]) for each in more[1:]] == [
        (["pods", "secrets"], ["get"]),
        (["nodes"], ["get", "patch"]),
    ]


def pod_spec(found: Objects) -> dict[str, Any]:
    spec: dict[str, Any] = found["DaemonSet", "nri-restore"]["spec"]["template"]["spec"]
    return spec


def test_manifests_name_what_the_image_has(tmp_path: Path) -> None:
    found, last = kustomized(base(tmp_path)), pod_spec(kustomized(uninstall(tmp_path)))
    spec = pod_spec(found)
    (init,), (main,) = spec["initContainers"], spec["containers"]
    hooks = [main["lifecycle"]["preStop"], main["readinessProbe"], main["livenessProbe"]]
    args = [each["args"][0] for each in (init, main, last["initContainers"][0], last["containers"][0])]
    assert {*args, *(each["exec"]["command"][-1] for each in hooks)} == set(ROLES)
    assert {each["exec"]["command"][0] for each in hooks} == {f"{CURRENT}/bin/python3"}
    assert init["volumeMounts"][0]["mountPath"] == str(FILES)
    assert spec["terminationGracePeriodSeconds"] > DRAIN_S + 10
    assert found["RuntimeClass", "nri-restore"]["handler"] == HANDLER


def test_default_runtime_is_asked_for_in_the_words_that_install_knows(tmp_path: Path) -> None:
    assert pod_spec(kustomized(base(tmp_path)))["initContainers"][0]["args"] == ["install"]
    spec = pod_spec(kustomized(as_default_runtime(tmp_path)))
    assert spec["initContainers"][0]["args"] == ["install", DEFAULT_RUNTIME]


def test_chart_has_the_default_given_back_before_it_uninstalls() -> None:
    with pytest.raises(CommandFailed) as refused:
        templated("uninstall=true", "defaultRuntime=true")
    assert "helm upgrade with defaultRuntime=false" in refused.value.stderr


def test_version_is_the_projects(tmp_path: Path) -> None:
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    spec = pod_spec(kustomized(base(tmp_path)))
    assert {each["image"] for each in (*spec["initContainers"], *spec["containers"])} == {f"nri-restore:{version}"}


def test_values_reach_the_nodes() -> None:
    found = templated("config=a = 1", "files.signer\\.pub=key", "nodeSelector.pool=restore", "image.tag=9")
    assert found["ConfigMap", "nri-restore"]["data"] == {"config.toml": "a = 1", "signer.pub": "key"}
    spec = pod_spec(found)
    assert spec["nodeSelector"]["pool"] == "restore"
    assert found["RuntimeClass", "nri-restore"]["scheduling"]["nodeSelector"] == spec["nodeSelector"]
    assert spec["containers"][0]["image"] == "nri-restore:9"


def test_pods_start_anew_when_their_files_change() -> None:
    def checksum(*values: str) -> str:
        template = templated(*values)["DaemonSet", "nri-restore"]["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/configuration"])

    assert checksum() == checksum("image.tag=9") != checksum("config=a = 1")


def test_chart_passes_lint_and_asks_for_its_image() -> None:
    run([helm(), "lint", "--strict", CHART, "--set", *IMAGE], timeout_s=300)
    with pytest.raises(CommandFailed) as refused:
        run([helm(), "template", "nri-restore", CHART], timeout_s=300)
    assert "image.repository is needed" in refused.value.stderr
