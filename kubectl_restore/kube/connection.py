"""One API server, spoken to as one user: requests in, documents or one-sentence errors out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

from kubectl_restore.kube.duration import seconds
from kubectl_restore.kube.errors import ApiRefused, Forbidden, KubeconfigInvalid
from kubectl_restore.kube.rbac import denied, remedy
from shared.errors import RestoreError, Unavailable
from shared.tls import bare_context

if TYPE_CHECKING:
    from urllib3 import PoolManager

    from kubectl_restore.kube.flags import ClusterFlags
    from kubectl_restore.kube.kubeconfig import Settings

Object = dict[str, Any]
CONNECT_S: Final = 30.0
"""client-go's limit for dialing (k8s.io/apimachinery pkg/util/net/http.go)."""
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    content_type: str = ""

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace").strip()

    @cached_property
    def document(self) -> Object | None:
        """The body when it is a JSON object."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    @property
    def api_reason(self) -> str:
        """The reason of a Status of the API server; empty for anything else, such as a kubelet's answer."""
        found = self.document or {}
        return str(found.get("reason", "")) if found.get("kind") == "Status" else ""

    @property
    def message(self) -> str:
        found = self.document or {}
        return str(found.get("message") or "") if found.get("kind") == "Status" else self.text


class Connection:
    def __init__(self, settings: Settings, *, request_timeout_s: float = 0) -> None:
        self.settings = settings
        self.namespace = settings.namespace
        self._timeout_s = request_timeout_s or None

    @property
    def server(self) -> str:
        """Its address, without a slash at the end."""
        return str(self.settings.configuration.host).rstrip("/")

    @property
    def impersonating(self) -> bool:
        return bool(self.settings.impersonate)

    @cached_property
    def _pool(self) -> PoolManager:
        import warnings

        from kubernetes.client.rest import RESTClientObject
        from urllib3.exceptions import InsecureRequestWarning

        # Who passes --insecure-skip-tls-verify knows; kubectl says nothing either.
        warnings.simplefilter("ignore", InsecureRequestWarning)
        pool: PoolManager = RESTClientObject(self.settings.configuration).pool_manager
        pool.connection_pool_kw["ssl_context"] = bare_context(verify=self.settings.configuration.verify_ssl)
        return pool

    def authorization(self) -> str:
        """Value of the Authorization header, renewed by its plugin when it ran out; empty without one."""
        configuration = self.settings.configuration
        for key in ("BearerToken", "authorization"):
            if key in configuration.api_key:
                return str(configuration.get_api_key_with_prefix(key))
        return ""

    def headers(self) -> list[tuple[str, str]]:
        """Of every request: who we are."""
        found = [("User-Agent", "kubectl-restore"), *self.settings.impersonate]
        authorization = self.authorization()
        return [*found, ("Authorization", authorization)] if authorization else found

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout_s: float | None = None,
    ) -> Reply:
        """Any answer, whatever its status; raises Unavailable or RestoreError("ApiServerCertificate")."""
        import urllib3

        headers = urllib3.HTTPHeaderDict()
        for name, value in [*self.headers(), ("Accept", "application/json")]:
            headers.add(name, value)
        content = None
        if body is not None:
            headers.add("Content-Type", content_type)
            content = json.dumps(body).encode()
        address = self.server + path + (f"?{urlencode(query)}" if query else "")
        limit = urllib3.Timeout(connect=CONNECT_S, read=timeout_s or self._timeout_s)
        try:
            answer = self._pool.request(
                method, address, body=content, headers=headers, timeout=limit, retries=False, redirect=False
            )
            return Reply(answer.status, answer.data, answer.headers.get("Content-Type", ""))
        except urllib3.exceptions.HTTPError as error:
            raise unreachable(self.server, error, "the API server") from error

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout_s: float | None = None,
    ) -> Object:
        """The document of a successful answer; raises ApiRefused, Forbidden and what ``send`` raises."""
        reply = self.send(method, path, body, query=query, content_type=content_type, timeout_s=timeout_s)
        if 200 <= reply.status < 300 and reply.document is not None:
            return reply.document
        raise refusal(reply, self.server)

    def get(self, path: str, **query: str) -> Object:
        return self.call("GET", path, query=query or None)

    def find(self, path: str, **query: str) -> Object | None:
        """None for 404."""
        try:
            return self.get(path, **query)
        except ApiRefused as error:
            if error.status == 404:
                return None
            raise


def connect(flags: ClusterFlags) -> Connection:
    """Reads the kubeconfig; the server is not asked yet. Raises KubeconfigInvalid."""
    from kubectl_restore.kube.kubeconfig import load

    limit = seconds(flags.request_timeout)
    if limit is None:
        raise KubeconfigInvalid(f"--request-timeout {flags.request_timeout} is not a duration such as 1s or 2m")
    return Connection(load(flags), request_timeout_s=limit)


def path_of(plural: str, namespace: str = "", name: str = "", sub: str = "", *, group: str = "") -> str:
    """``/apis/coordination.k8s.io/v1/namespaces/default/leases/x``; groups are asked for in version v1."""
    parts = [f"/apis/{group}/v1" if group else "/api/v1"]
    if namespace:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(plural)
    if name:
        parts.append(quote(name, safe=""))
    if sub:
        parts.append(sub)
    return "/".join(parts)


def refusal(reply: Reply, server: str) -> ApiRefused:
    """The error for an answer that is not a success."""
    message = reply.message or f"HTTP status {reply.status}"
    if reply.status == 401:
        return ApiRefused(
            f"{server} does not know who you are (401 Unauthorized): log in again, or choose another user or context",
            status=401,
            api_reason=reply.api_reason,
            reason="Unauthorized",
        )
    if reply.status == 403:
        missing = denied(message)
        if missing:
            sentence = f'user "{missing.user}" may not {missing.what}; an administrator can allow it'
            return Forbidden(sentence, remedy=remedy(missing))
        return Forbidden(message)
    return ApiRefused(
        message, status=reply.status, api_reason=reply.api_reason, reason=reply.api_reason or "ApiRefused"
    )


def unreachable(server: str, error: Exception, what: str) -> RestoreError:
    """The error for a request that got no answer; ``what`` names the other side."""
    import urllib3

    where = urlsplit(server).netloc or server
    said = str(error)
    if isinstance(error, urllib3.exceptions.SSLError) or "CERTIFICATE_VERIFY_FAILED" in said:
        why = said.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or said
        return RestoreError(
            "ApiServerCertificate",
            f"the certificate of {what} {where} is not trusted ({why}): "
            "give its CA with --certificate-authority or in the kubeconfig",
        )
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return Unavailable("ApiServerTimeout", f"{what} {where} took the request and did not answer in time")
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return Unavailable("ApiServerUnreachable", f"the name of {what} {where} cannot be resolved; check the address")
    if "refused" in said:
        return Unavailable(
            "ApiServerUnreachable",
            f"the connection to {what} {where} was refused; did you specify the right host or port?",
        )
    # NewConnectionError is a ConnectTimeoutError too.
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError) and "timed out" in said:
        return Unavailable("ApiServerUnreachable", f"{what} {where} did not answer within {CONNECT_S:.0f} s")
    why = said.partition(": ")[2] or said
    return Unavailable("ApiServerUnreachable", f"the connection to {what} {where} failed: {why}")
