"""The kubelet's checkpoint call: through the API server's node proxy, or directly to the kubelet's port.

Source: kubernetes pkg/kubelet/server/server.go; POST /checkpoint/NAMESPACE/POD/CONTAINER[?timeout=SECONDS] answers
``{"items": ["/var/lib/kubelet/checkpoints/…tar"]}``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode, urlsplit

from kubectl_restore.kube.connection import CONNECT_S, Reply, path_of, unreachable
from kubectl_restore.kube.errors import ApiRefused, Forbidden
from kubectl_restore.kube.kubelet_refusals import refused
from kubectl_restore.kube.rbac import denied
from kubectl_restore.kube.via import Via
from shared.errors import RestoreError, Unavailable

if TYPE_CHECKING:
    from kubectl_restore.kube.connection import Connection
    from kubectl_restore.kube.pods import Target

PORT: Final = 10250
TIMEOUT_S: Final = 300.0
"""What the kubelet is asked for when the user says nothing: its own default of 2 minutes is short for 8 GiB."""
_GRACE_S: Final = 30.0
"""How much longer than the kubelet we wait, so that its own answer is the one that is seen."""


@dataclass(frozen=True)
class KubeletAccess:
    via: Via = Via.auto
    address: str = ""
    """``HOST[:PORT]``; empty: the pod's host IP and the port in the node's status."""
    certificate_authority: Path | None = None
    """PEM; None: the API server's CA."""
    insecure_skip_tls_verify: bool = False


@dataclass(frozen=True)
class Taken:
    target: Target
    path: str
    """On the node."""
    seconds: float
    via: Via


def take(
    connection: Connection,
    target: Target,
    *,
    timeout_s: float = TIMEOUT_S,
    access: KubeletAccess | None = None,
    note: Callable[[str], None] = lambda sentence: None,
) -> Taken:
    """Has the kubelet checkpoint the container, which goes on running.

    ``timeout_s`` is passed on to the kubelet in whole seconds. ``note`` is told when the other way is taken.
    Raises what ``refused`` makes, Unavailable, RestoreError("KubeletCertificate").
    """
    access = access or KubeletAccess()
    began = time.monotonic()
    via = access.via
    route = "/checkpoint/" + "/".join(quote(each, safe="") for each in (target.namespace, target.pod, target.container))
    route += "?" + urlencode({"timeout": max(1, round(timeout_s))})
    limit = timeout_s + _GRACE_S
    if via is Via.kubelet:
        reply = _directly(connection, target, access, route, limit)
    else:
        reply = _through_proxy(connection, target, route, limit)
        if via is Via.auto and (reason := _direct_may_help(connection, reply)):
            note(f"{reason}; asking the kubelet of node {target.node} directly")
            via = Via.kubelet
            reply = _instead(connection, target, access, route, limit, reply)
    if reply.status != 200:
        runtime = _runtime(connection, target.node) if reply.status == 500 else ""
        raise refused(reply, target, runtime=runtime, timeout_s=timeout_s)
    items = (reply.document or {}).get("items")
    if not isinstance(items, list) or not items or not str(items[0]).startswith("/"):
        raise RestoreError(
            "KubeletAnswerInvalid", f"the kubelet of node {target.node} names no checkpoint in its answer: {reply.text}"
        )
    return Taken(target, str(items[0]), time.monotonic() - began, Via.apiserver if via is Via.auto else via)


def _through_proxy(connection: Connection, target: Target, route: str, limit: float) -> Reply:
    path = path_of("nodes", name=target.node, sub="proxy") + route
    return connection.send("POST", path, {}, timeout_s=limit)


def _direct_may_help(connection: Connection, reply: Reply) -> str:
    """Why, or "": only when the API server refuses ``nodes/proxy`` itself, and never with someone else's identity."""
    if reply.status != 403 or connection.impersonating or not has_credentials(connection):
        return ""
    missing = denied(reply.message)
    if missing is None:
        return ""
    if missing.by_kubelet:
        return f"the kubelet does not let the API server ({missing.user}) take checkpoints"
    return f"you may not {missing.what}" if missing.resource == "nodes/proxy" else ""


def has_credentials(connection: Connection) -> bool:
    """Whether we have anything a kubelet could know us by."""
    return bool(connection.authorization().lower().startswith("bearer ") or connection.settings.configuration.cert_file)


def _instead(
    connection: Connection, target: Target, access: KubeletAccess, route: str, limit: float, first: Reply
) -> Reply:
    """The direct call after a refusal; when it cannot be made, the refusal is the error, with the reason added."""
    try:
        return _directly(connection, target, access, route, limit)
    except RestoreError as error:
        refusal = refused(first, target)
        if not isinstance(refusal, Forbidden) or error.reason == "ApiServerTimeout":
            raise
        raise Forbidden(f"{refusal} (and {error})", remedy=refusal.remedy, reason=refusal.reason) from error


def _directly(connection: Connection, target: Target, access: KubeletAccess, route: str, limit: float) -> Reply:
    import urllib3

    if connection.impersonating:
        raise RestoreError(
            "ImpersonationImpossible",
            "a kubelet does not know impersonation: leave out --as, or use --via apiserver",
        )
    if not has_credentials(connection):
        raise RestoreError(
            "KubeletCredentialsMissing",
            "the kubeconfig has neither a bearer token nor a client certificate, and a kubelet takes nothing else",
        )
    server = f"https://{_address(connection, target, access)}"
    configuration = connection.settings.configuration
    verify = not access.insecure_skip_tls_verify
    authority = access.certificate_authority or configuration.ssl_ca_cert
    headers = {"User-Agent": "kubectl-restore"}
    if authorization := connection.authorization():
        headers["Authorization"] = authorization
    pool = urllib3.PoolManager(
        cert_reqs="CERT_REQUIRED" if verify else "CERT_NONE",
        ca_certs=str(authority) if authority and verify else None,
        cert_file=configuration.cert_file,
        key_file=configuration.key_file,
    )
    try:
        answer = pool.request(
            "POST",
            server + route,
            headers=headers,
            timeout=urllib3.Timeout(connect=CONNECT_S, read=limit),
            retries=False,
            redirect=False,
        )
        return Reply(answer.status, answer.data, answer.headers.get("Content-Type", ""))
    except urllib3.exceptions.HTTPError as error:
        raise _kubelet_unreachable(server, target, error) from error
    finally:
        pool.clear()


def _kubelet_unreachable(server: str, target: Target, error: Exception) -> RestoreError:
    found = unreachable(server, error, f"the kubelet of node {target.node} at")
    if found.reason == "ApiServerCertificate":
        said = str(found).partition(" (")[2].partition("): ")[0]
        return RestoreError(
            "KubeletCertificate",
            f"the certificate of the kubelet of node {target.node} is not trusted ({said}), and your credentials are "
            "not sent to it: give its CA with --kubelet-certificate-authority, or, knowing the risk, "
            "--kubelet-insecure-skip-tls-verify",
        )
    return Unavailable("KubeletUnreachable", str(found)) if found.reason == "ApiServerUnreachable" else found


def _address(connection: Connection, target: Target, access: KubeletAccess) -> str:
    """``HOST:PORT``; the node's status is asked for when we may read it, and not needed."""
    if access.address:
        given = urlsplit(f"//{access.address}")
        return access.address if given.port else f"{access.address}:{PORT}"
    try:
        status = connection.get(path_of("nodes", name=target.node)).get("status", {})
    except ApiRefused:
        status = {}
    addresses = {each["type"]: each["address"] for each in status.get("addresses", [])}
    host = addresses.get("InternalIP") or target.host_ip or addresses.get("Hostname") or target.node
    port = status.get("daemonEndpoints", {}).get("kubeletEndpoint", {}).get("Port") or PORT
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _runtime(connection: Connection, node: str) -> str:
    """``containerd 1.7.24``; empty when we may not look."""
    try:
        info = connection.get(path_of("nodes", name=node))["status"]["nodeInfo"]
    except (RestoreError, KeyError):
        return ""
    return str(info.get("containerRuntimeVersion", "")).replace("://", " ")
