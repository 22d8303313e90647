from __future__ import annotations

import pytest
import yaml

from kubectl_restore.kube.rbac import Denied, denied, remedy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'nodes "n1" is forbidden: User "jane" cannot create resource "nodes/proxy" in API group "" cluster-wide',
            Denied("jane", "create", "nodes/proxy"),
        ),
        (
            'x is forbidden: User "jane" cannot list resource "deployments" in API group "apps" in the namespace "web"',
            Denied("jane", "list", "deployments", "apps", "web"),
        ),
        (
            "Forbidden (user=kube-apiserver, verb=create, resource=nodes, subresource(s)=[checkpoint])\n",
            Denied("kube-apiserver", "create", "nodes/checkpoint", by_kubelet=True),
        ),
        (
            "Forbidden (user=system:anonymous, verb=create, resource=nodes, subresource=proxy)",
            Denied("system:anonymous", "create", "nodes/proxy", by_kubelet=True),
        ),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest"', None),
    ],
)
def test_refusals_are_read(text: str, expected: Denied | None) -> None:
    assert denied(text) == expected


def test_cluster_wide_right_needs_a_cluster_role() -> None:
    role, binding = yaml.safe_load_all(remedy(Denied("jane", "create", "nodes/proxy"), Denied("jane", "get", "nodes")))
    assert role == {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "kubectl-restore"},
        "rules": [
            {"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["create"]},
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
        ],
    }
    assert binding["kind"] == "ClusterRoleBinding"
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "kubectl-restore",
    }
    assert binding["subjects"] == [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]


def test_right_in_a_namespace_needs_a_role_there() -> None:
    role, binding = yaml.safe_load_all(remedy(Denied("jane", "create", "pods/exec", namespace="web")))
    assert (role["kind"], role["metadata"]["namespace"]) == ("Role", "web")
    assert (binding["kind"], binding["metadata"]["namespace"]) == ("RoleBinding", "web")


def test_service_account_is_bound_as_one() -> None:
    _, binding = yaml.safe_load_all(remedy(Denied("system:serviceaccount:ci:builder", "create", "nodes/proxy")))
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "builder", "namespace": "ci"}]
