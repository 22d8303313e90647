"""Reads a refusal by RBAC and writes the Role or ClusterRole that would lift it, ready for ``kubectl apply -f -``.

Source of the texts: kubernetes apiserver pkg/endpoints/handlers/responsewriters/errors.go (API server) and kubelet
pkg/kubelet/server/server.go (kubelet).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_API: Final = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) (?:resource|path) "(?P<resource>[^"]*)"'
    r'(?: in API group "(?P<group>[^"]*)")?(?: in the namespace "(?P<namespace>[^"]*)")?'
)
_KUBELET: Final = re.compile(
    r"Forbidden \(user=(?P<user>[^,]*), verb=(?P<verb>[^,]*), resource=(?P<resource>[^,)]*)"
    r"(?:, subresource\(s\)=\[(?P<subresource>[^\]]*)\]|, subresource=(?P<single>[^)]*))?"
)


@dataclass(frozen=True)
class Denied:
    user: str
    verb: str
    resource: str
    """With its subresource: ``nodes/proxy``."""
    group: str = ""
    namespace: str = ""
    by_kubelet: bool = False

    @property
    def what(self) -> str:
        """``create leases.coordination.k8s.io in namespace default``"""
        named = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {named}" + (f" in namespace {self.namespace}" if self.namespace else "")


def denied(text: str) -> Denied | None:
    """What a 403 is about; None when it is not RBAC's (an admission's, say)."""
    if found := _KUBELET.search(text):
        subresource = (found["subresource"] or found["single"] or "").split(" ")[0].split(",")[0]
        resource = f"{found['resource']}/{subresource}" if subresource else found["resource"]
        return Denied(found["user"], found["verb"], resource, by_kubelet=True)
    if found := _API.search(text):
        return Denied(found["user"], found["verb"], found["resource"], found["group"] or "", found["namespace"] or "")
    return None


def remedy(missing: Denied, *more: Denied) -> str:
    """YAML of a role with every right in ``missing`` and ``more``, and its binding to the user of ``missing``."""
    cluster_wide = not missing.namespace
    kind = "ClusterRole" if cluster_wide else "Role"
    namespace = "" if cluster_wide else f"\n  namespace: {missing.namespace}"
    name = "kubectl-restore-kubelet" if missing.by_kubelet else "kubectl-restore"
    rules = "".join(
        f'- apiGroups: ["{each.group}"]\n  resources: ["{each.resource}"]\n  verbs: ["{each.verb}"]\n'
        for each in (missing, *more)
    )
    return (
        f"apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}{namespace}\n"
        f"rules:\n{rules}"
        "---\n"
        f"apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}Binding\nmetadata:\n  name: {name}{namespace}\n"
        f"roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {kind}\n  name: {name}\n"
        f"subjects:\n{_subject(missing.user)}"
    )


def _subject(user: str) -> str:
    if user.startswith("system:serviceaccount:"):
        _, _, namespace, name = user.split(":", 3)
        return f"- kind: ServiceAccount\n  name: {name}\n  namespace: {namespace}\n"
    return f'- apiGroup: rbac.authorization.k8s.io\n  kind: User\n  name: "{user}"\n'
