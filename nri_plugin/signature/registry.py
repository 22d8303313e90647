"""Reads from a registry what lies beside an image: manifests and small blobs, anonymously.

Source: OCI distribution-spec v1.1 ("Pulling manifests", "Listing Referrers", "Referrers Tag Schema"), Docker's token
authentication. What is read is untrusted and bounded.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode

import urllib3

from nri_plugin.signature.hosts import Host
from shared import oci
from shared.errors import Unavailable
from shared.tls import client_context

TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=10.0)
_REDIRECTS: Final = urllib3.Retry(total=3, connect=0, read=0, redirect=3, status=0, other=0, raise_on_status=False)
_TOKEN_BYTES_MAX: Final = 64 << 10


class _Failed(Exception):
    """One host could not answer; the text says why."""


class Repository:
    """One repository; asks ``hosts`` in turn, as containerd does."""

    def __init__(self, reference: oci.Reference, hosts: Sequence[Host]) -> None:
        self.reference = reference
        self._hosts = hosts
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._tokens: dict[str, str] = {}

    def manifest(self, target: str) -> bytes | None:
        """A manifest or index by tag or digest; None when there is none; raises Unavailable("SignatureUnavailable")."""
        content = self._get(f"manifests/{target}", oci.MAX_DOCUMENT_BYTES, ", ".join(oci.ACCEPTED_MANIFESTS))
        return self._checked(content, target) if content is not None and oci.is_digest(target) else content

    def referrers(self, digest: str) -> bytes | None:
        """The index of what refers to ``digest``, from the API or, where there is none, the tag that stands for it."""
        found = self._get(f"referrers/{digest}", oci.MAX_DOCUMENT_BYTES, oci.INDEX)
        return found if found is not None else self.manifest(digest.replace(":", "-"))

    def blob(self, digest: str, limit_bytes: int) -> bytes:
        content = self._get(f"blobs/{digest}", limit_bytes, "*/*")
        if content is None:
            raise self._unavailable(f"{digest} is not there")
        return self._checked(content, digest)

    def _checked(self, content: bytes, digest: str) -> bytes:
        if not oci.matches(content, digest):
            raise self._unavailable(f"what it gives as {digest} is something else")
        return content

    def _get(self, path: str, limit_bytes: int, accept: str) -> bytes | None:
        failures: list[str] = []
        for host in self._hosts:
            try:
                content = self._get_from(host, path, limit_bytes, accept)
            except (urllib3.exceptions.HTTPError, OSError, ValueError, _Failed) as error:
                failures.append(f"{host.base}: {_reason(error)}")
                continue
            if content is not None:
                return content
        if failures:
            raise self._unavailable("; ".join(failures))
        return None

    def _get_from(self, host: Host, path: str, limit_bytes: int, accept: str) -> bytes | None:
        url = f"{host.base}/{self.reference.repository}/{path}"
        headers = {"Accept": accept, **host.headers}
        if host.base in self._tokens:
            headers["Authorization"] = self._tokens[host.base]
        status, content, challenge = self._request(host, url, limit_bytes, headers)
        if status == 401:
            self._tokens[host.base] = headers["Authorization"] = f"Bearer {self._token(host, challenge)}"
            status, content, _ = self._request(host, url, limit_bytes, headers)
        if status in (200, 404):
            return content if status == 200 else None
        raise _Failed("it wants a login" if status in (401, 403) else f"it answers {status}")

    def _request(self, host: Host, url: str, limit_bytes: int, headers: Mapping[str, str]) -> tuple[int, bytes, str]:
        """Status, body (of status 200 only) and the challenge of status 401."""
        response = self._pool(host).request(
            "GET", url, headers=headers, timeout=TIMEOUT, retries=_REDIRECTS, preload_content=False
        )
        try:
            content = response.read(limit_bytes + 1, decode_content=False) if response.status == 200 else b""
        finally:
            response.close()
        if len(content) > limit_bytes:
            raise _Failed(f"it answers with more than {limit_bytes} bytes")
        return response.status, content, response.headers.get("WWW-Authenticate", "")

    def _token(self, host: Host, challenge: str) -> str:
        """A token as anybody gets it; raises _Failed where only credentials would do."""
        fields = dict(re.findall(r'(?<!\w)(\w+)="([^"]*)"', challenge))
        realm = fields.get("realm", "")
        if challenge.split(" ")[0].lower() != "bearer" or not realm.startswith(("https://", "http://")):
            raise _Failed("it wants a login")
        scope = f"repository:{self.reference.repository}:pull"
        query = urlencode({"service": fields.get("service", ""), "scope": scope})
        # Without the host's own headers: where the realm is, whoever answers for the registry says.
        status, content, _ = self._request(host, f"{realm}?{query}", _TOKEN_BYTES_MAX, {"Accept": "application/json"})
        if status != 200:
            raise _Failed("it wants a login")
        try:
            document = json.loads(content)
            token = document.get("token") or document["access_token"]
        except (ValueError, AttributeError, KeyError, RecursionError) as error:
            raise _Failed("its token service gives no token") from error
        return str(token)

    def _pool(self, host: Host) -> urllib3.PoolManager:
        if host.base not in self._pools:
            context = client_context()
            for file in host.ca:
                context.load_verify_locations(file)
            if host.client:
                context.load_cert_chain(*host.client)
            if not host.verify:
                urllib3.disable_warnings()
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._pools[host.base] = urllib3.PoolManager(ssl_context=context)
        return self._pools[host.base]

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(
            "SignatureUnavailable", f"the signatures of {self.reference.name} cannot be read from its registry: {why}"
        )


def _reason(error: Exception) -> str:
    """Without urllib3's names of its own objects."""
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason:
        error = error.reason
    return re.sub(r"^.*?\): ", "", str(error)) or type(error).__name__
