"""Every manifest we write or apply, before the schemas of the three newest Kubernetes releases: no unknown field."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest
import yaml

from kubectl_restore.kube import transfer_pod
from kubectl_restore.kube.rbac import denied, remedy
from kubectl_restore.manifest.commented import as_yaml
from kubectl_restore.manifest.pod import bare_pod, fit
from kubectl_restore.manifest.template import own_part
from kubectl_restore.manifest.workload import restoring
from tests.support.pods import Security
from tests.unit.kubectl_restore.manifest.test_pod import SECURITIES, running, wanted

Object = dict[str, Any]

_MAJOR, _MINOR = map(int, kubernetes_validate.latest_version().split(".")[:2])
RELEASES = [f"{_MAJOR}.{_MINOR - older}" for older in range(3)]
RBAC = (
    'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "shop"',
    'nodes "n" is forbidden: User "jane" cannot create resource "nodes/proxy" in API group "" at the cluster scope',
)


def valid(document: Object) -> None:
    for release in RELEASES:
        assert kubernetes_validate.validate(document, release, strict=True) == release


@pytest.mark.parametrize("annotate", [False, True])
@pytest.mark.parametrize("security", SECURITIES, ids=str)
def test_pod_with_and_without_one_to_follow(security: Security, annotate: bool) -> None:
    of = wanted(security, annotate=annotate)
    alone, following = bare_pod(of.checkpoint), own_part(running(of))
    for pod, known in ((alone, False), (following, True)):
        text = as_yaml(pod, fit(pod, of.checkpoint.container_name, of, known=known))
        valid(yaml.safe_load(text))


def workload(kind: str, template: Object) -> Object:
    group = {"Job": "batch"}.get(kind, "apps")
    match: Object = {"selector": {"matchLabels": {"app": "web"}}}
    own: dict[str, Object] = {
        "Deployment": match,
        "StatefulSet": {**match, "serviceName": "web"},
        "Job": {"backoffLimit": 2, "selector": match["selector"]},
    }
    metadata = {"name": "web", "namespace": "shop"}
    return {
        "apiVersion": f"{group}/v1",
        "kind": kind,
        "metadata": metadata,
        "spec": {**own[kind], "template": template},
    }


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@pytest.mark.parametrize("annotate", [False, True])
@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "Job"])
def test_workload_with_its_patch_applied(kind: str, annotate: bool) -> None:
    of = wanted(Security(uid=1000, gid=1000, seccomp=True), annotate=annotate)
    pod = own_part(running(of))
    before = workload(kind, {"metadata": {"labels": {"app": "web"}}, "spec": pod["spec"]})
    if kind == "Job":
        before["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
    written = restoring(copy.deepcopy(before), of.checkpoint.container_name, of)
    document = yaml.safe_load(as_yaml(written.document, written.comments))
    after = document if kind == "Job" else merged(before, document)
    assert after["spec"]["template"]["spec"]["runtimeClassName"] == "nri-restore"
    valid(before)
    valid(after)


def test_pod_that_reads_a_file_of_a_node() -> None:
    valid(transfer_pod.manifest("kubectl-restore-1", "node-1", "/var/lib/kubelet/checkpoints", "busybox:1.37", 3600))


@pytest.mark.parametrize("message", RBAC)
def test_rights_that_are_proposed(message: str) -> None:
    missing = denied(message)
    assert missing
    documents = list(yaml.safe_load_all(remedy(missing)))
    assert documents
    for document in documents:
        valid(document)


def unknown_field(pod: Object) -> None:
    pod["spec"]["containers"][0]["restoreFrom"] = "x"


def wrong_type(pod: Object) -> None:
    pod["spec"]["hostNetwork"] = "yes"


def missing_name(pod: Object) -> None:
    del pod["spec"]["containers"][0]["name"]


@pytest.mark.parametrize("spoil", [unknown_field, wrong_type, missing_name])
def test_what_the_schemas_do_not_know_is_noticed(spoil: Callable[[Object], None]) -> None:
    of = wanted()
    pod = bare_pod(of.checkpoint)
    fit(pod, pod["spec"]["containers"][0]["name"], of, known=False)
    valid(pod)
    spoil(pod)
    with pytest.raises(kubernetes_validate.ValidationError):
        valid(pod)
