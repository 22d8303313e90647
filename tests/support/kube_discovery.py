"""What kubectl asks a server first: which groups and resources there are."""

from __future__ import annotations

import re

from tests.support.kube_objects import RESOURCES, Object


def discovery(version: str, route: str) -> Object | None:
    """The document at this path; None when it is no path of discovery."""
    groups = sorted({(each.group, each.version) for each in RESOURCES if each.group})
    if route in ("/healthz", "/readyz", "/livez"):
        return {"status": "ok"}
    if route == "/version":
        return {"major": "1", "minor": version.split(".")[1], "gitVersion": version, "platform": "linux/amd64"}
    if route == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if route == "/apis":
        listed = [
            {
                "name": group,
                "versions": [{"groupVersion": f"{group}/{of}", "version": of}],
                "preferredVersion": {"groupVersion": f"{group}/{of}", "version": of},
            }
            for group, of in groups
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    found = re.fullmatch(r"/api/v1|/apis/([^/]+)/([^/]+)", route)
    if not found:
        return None
    resources = [
        {
            "name": each.plural,
            "singularName": each.kind.lower(),
            "namespaced": each.namespaced,
            "kind": each.kind,
            "shortNames": list(each.short),
            "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
        }
        for each in RESOURCES
        if each.group == (found[1] or "")
    ]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{found[1]}/{found[2]}" if found[1] else "v1",
        "resources": resources,
    }
