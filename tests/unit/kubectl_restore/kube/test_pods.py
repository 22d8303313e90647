from __future__ import annotations

from typing import Any

import pytest

from kubectl_restore.kube.connection import Connection
from kubectl_restore.kube.pods import DEFAULT_CONTAINER, find_pod, pod_name, target
from shared.errors import RestoreError
from tests.support.kube_api import KubeApi


@pytest.mark.parametrize(("text", "name"), [("web", "web"), ("pod/web", "web"), ("pods/web", "web"), ("po/web", "web")])
def test_pod_is_named_as_in_kubectl(text: str, name: str) -> None:
    assert pod_name(text) == name


@pytest.mark.parametrize("text", ["deployment/web", "pod/", "", "a/b/c"])
def test_other_kinds_are_refused(text: str) -> None:
    with pytest.raises(RestoreError, match="is not a pod; write NAME or pod/NAME"):
        pod_name(text)


def test_missing_pod_is_told_with_its_namespace(api: KubeApi, connection: Connection) -> None:
    with pytest.raises(RestoreError, match='no pod "web" in namespace default') as error:
        find_pod(connection, "web")
    assert error.value.reason == "PodNotFound"


def test_only_container_is_meant_without_a_word(api: KubeApi, connection: Connection) -> None:
    api.add_pod("web", "nginx")
    found = target(find_pod(connection, "web"))
    assert (found.container, found.node, found.host_ip, found.namespace) == ("nginx", "node-1", "127.0.0.1", "default")
    assert len(found.uid) == 36


def test_annotation_says_which_container_is_meant(api: KubeApi) -> None:
    assert target(api.add_pod("web", "a", "b", annotations={DEFAULT_CONTAINER: "b"})).container == "b"
    assert target(api.add_pod("api", "a", "b", annotations={DEFAULT_CONTAINER: "b"}), "a").container == "a"


def test_several_containers_are_listed(api: KubeApi) -> None:
    sidecar = [{"name": "mesh", "image": "x", "restartPolicy": "Always"}, {"name": "setup", "image": "x"}]
    with pytest.raises(RestoreError, match=r"choose one with -c: a, b, mesh$") as error:
        target(api.add_pod("web", "a", "b", initContainers=sidecar, annotations={DEFAULT_CONTAINER: "gone"}))
    assert error.value.reason == "ContainerAmbiguous"


def test_unknown_container_is_told_with_the_known_ones(api: KubeApi) -> None:
    with pytest.raises(RestoreError, match="no container c; there are: a, b") as error:
        target(api.add_pod("web", "a", "b"), "c")
    assert error.value.reason == "ContainerNotFound"


def _deleted(pod: dict[str, Any]) -> None:
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


def _unscheduled(pod: dict[str, Any]) -> None:
    del pod["spec"]["nodeName"]


def _succeeded(pod: dict[str, Any]) -> None:
    pod["status"]["phase"] = "Succeeded"


def _crashing(pod: dict[str, Any]) -> None:
    pod["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_deleted, "is being deleted"),
        (_unscheduled, "is not yet on any node"),
        (_succeeded, "is Succeeded"),
        (_crashing, r"is waiting \(CrashLoopBackOff\)"),
    ],
)
def test_what_does_not_run_cannot_be_meant(api: KubeApi, change: Any, sentence: str) -> None:
    pod = api.add_pod("web")
    change(pod)
    with pytest.raises(RestoreError, match=sentence):
        target(pod)
