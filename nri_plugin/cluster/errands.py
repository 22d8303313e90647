"""What the child process does at the API server; each errand is a JSON object in and one out.

| in | out |
|---|---|
| ``{"errand": "events", "events": [{name, count, subject, reason, message, type}]}`` | ``{}`` |
| ``{"errand": "logins", "subject": …, "reference": …}`` | ``{"logins": [[user, password], …]}`` |
| ``{"errand": "publish"}`` | ``{"written": bool}``; false where patching nodes is not allowed |
| ``{"errand": "look"}`` | ``{"node": name}`` |
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

from nri_plugin.cluster.api import Api, ApiRefused
from nri_plugin.cluster.logins import logins_for
from shared import contract, node_facts
from shared.errors import Unavailable

Object = Mapping[str, Any]

COMPONENT: Final = "nri-restore"
MESSAGE_LIMIT: Final = 1024
"""Of an Event's message (kubernetes pkg/apis/core/validation/events.go)."""
SECRETS_LIMIT: Final = 20


def run_errand(request: Object, api: Api, node: str) -> Object:
    """``node`` is this node's name, empty where the API server is to say it.

    Raises RestoreError: ApiRefused, ApiServerUnreachable, PodGone.
    """
    match request["errand"]:
        case "events":
            post_events(api, node or own_node(api), request["events"])
            return {}
        case "logins":
            return {"logins": pod_logins(api, request["subject"], request["reference"])}
        case "publish":
            return {"written": publish(api, node or own_node(api))}
        case "look":
            return {"node": look(api, node or own_node(api))}
    raise ValueError(request["errand"])


def own_node(api: Api) -> str:
    """The node whose kubelet, or whose pod, has these credentials; else the host name, the kubelet's own default.

    Source: kubernetes pkg/auth/nodeidentifier/default.go; KEP-4193 for the claims of a pod's token.
    """
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        user = (
            api.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", asked).get("status", {}).get("userInfo", {})
        )
    except ApiRefused:
        user = {}
    named = str(user.get("username", "")).partition("system:node:")[2]
    claimed = (user.get("extra") or {}).get("authentication.kubernetes.io/node-name") or [""]
    return named or str(claimed[0]) or socket.gethostname().lower()


def post_events(api: Api, node: str, events: list[Object]) -> None:
    """One that cannot be posted (its namespace may be going) does not keep the others; raises the first error."""
    refused = None
    for each in events:
        try:
            _post_event(api, node, each)
        except ApiRefused as error:
            refused = refused or error
    if refused:
        raise refused


def _post_event(api: Api, node: str, told: Object) -> None:
    """Creates the Event or raises its count; nodes may do that, but not read it first."""
    subject = told["subject"]
    events = f"{_namespace(subject)}/events"
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    again = {"count": told["count"], "lastTimestamp": now}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": told["name"], "namespace": subject["namespace"]},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": subject["namespace"],
            "name": subject["pod"],
            "uid": subject["pod_uid"],
            "fieldPath": f"spec.containers{{{subject['container']}}}",
        },
        "reason": told["reason"],
        "message": told["message"][:MESSAGE_LIMIT],
        "type": told["type"],
        "source": {"component": COMPONENT, "host": node},
        "reportingComponent": COMPONENT,
        "reportingInstance": node,
        "firstTimestamp": now,
        **again,
    }
    if told["count"] > 1:
        try:
            api.patch(f"{events}/{told['name']}", again)
            return
        except ApiRefused as error:
            if error.status != 404:  # it is kept for an hour
                raise
    try:
        api.post(events, event)
    except ApiRefused as error:
        if error.status != 409:  # a daemon before this one made it
            raise
        api.patch(f"{events}/{told['name']}", {"lastTimestamp": now})


def pod_logins(api: Api, subject: Object, reference: str) -> list[tuple[str, str]]:
    """What the pod's pull secrets have for ``reference``; what is not there or not ours to read has nothing."""
    namespace = _namespace(subject)
    try:
        pod = api.get(f"{namespace}/pods/{quote(subject['pod'], safe='')}")
    except ApiRefused as error:
        if error.status != 403:
            raise
        return []
    if pod.get("metadata", {}).get("uid") != subject["pod_uid"]:
        raise Unavailable("PodGone", f"the pod {subject['namespace']}/{subject['pod']} is another one by now")
    secrets = []
    for each in (pod.get("spec", {}).get("imagePullSecrets") or [])[:SECRETS_LIMIT]:
        try:
            secrets.append(api.get(f"{namespace}/secrets/{quote(each['name'], safe='')}"))
        except ApiRefused as error:
            if error.status not in (403, 404):
                raise
    return logins_for(reference, secrets)


def _namespace(subject: Object) -> str:
    return f"/api/v1/namespaces/{quote(subject['namespace'], safe='')}"


def publish(api: Api, node: str) -> bool:
    """Writes what ``kubectl restore check --node`` wants to know of this node into its annotation; whether it may."""
    facts = node_facts.to_annotation(node_facts.gather(node))
    try:
        with _known(node):
            api.patch(f"/api/v1/nodes/{node}", {"metadata": {"annotations": {contract.NODE_FACTS: facts}}})
    except ApiRefused as error:
        if error.status != 403:
            raise
        return False
    return True


def look(api: Api, node: str) -> str:
    """The node's name, once the API server has confirmed that there is one."""
    with _known(node):
        return str(api.get(f"/api/v1/nodes/{node}")["metadata"]["name"])


@contextmanager
def _known(node: str) -> Iterator[None]:
    try:
        yield
    except ApiRefused as error:
        if error.status == 404:
            named = f"there is no node {node}; set cluster.node in the configuration to this node's name"
            raise ApiRefused(404, named) from error
        raise
