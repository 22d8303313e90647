"""Requests to the API server."""

from __future__ import annotations

import json
from typing import Any, Final

import urllib3

from nri_plugin.cluster.access import Access
from shared.errors import RestoreError, Unavailable
from shared.tls import bare_context

MERGE_PATCH: Final = "application/merge-patch+json"
CONNECT_S, READ_S = 5.0, 15.0


class ApiRefused(RestoreError):
    """An answer other than success, with its HTTP ``status``."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__("ApiRefused", sentence)
        self.status = status


class Api:
    """One client; ``get``, ``post`` and ``patch`` give the decoded answer.

    They raise ApiRefused, Unavailable("ApiServerUnreachable").
    """

    def __init__(self, access: Access) -> None:
        self.server = access.server.rstrip("/")
        self._pool = urllib3.PoolManager(
            ssl_context=bare_context(),
            ca_certs=str(access.ca) if access.ca else None,
            cert_file=str(access.certificate) if access.certificate else None,
            key_file=str(access.key or access.certificate) if access.certificate else None,
            timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
            retries=False,
        )
        self._headers = {"User-Agent": "nri-restore", "Accept": "application/json"}
        if access.token:
            self._headers["Authorization"] = f"Bearer {access.token}"

    def get(self, path: str) -> dict[str, Any]:
        return self._call("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._call("POST", path, body)

    def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A merge patch (RFC 7386)."""
        return self._call("PATCH", path, body, MERGE_PATCH)

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, kind: str = "application/json"
    ) -> dict[str, Any]:
        data = json.dumps(body).encode() if body is not None else None
        try:
            answer = self._pool.request(
                method, self.server + path, body=data, headers={**self._headers, "Content-Type": kind}
            )
            document = json.loads(answer.data or b"{}")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(
                "ApiServerUnreachable", f"the API server {self.server} cannot be reached: {error}"
            ) from error
        except ValueError as error:
            raise ApiRefused(answer.status, f"{self.server}{path} answers {answer.status} and no JSON") from error
        if answer.status >= 400 or not isinstance(document, dict):
            said = document.get("message") if isinstance(document, dict) else None
            raise ApiRefused(answer.status, f"the API server answers {answer.status}: {said or path}")
        return document
