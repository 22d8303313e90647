"""A registry client for what image building needs: manifests, blobs, streaming and resumable uploads, mounts.

PyPI's ``oras`` was looked at first: it hashes in a pass of its own before it uploads, cannot resume an upload nor mount
a blob of another repository, and brings requests besides the urllib3 we have. Sources: OCI distribution-spec v1.1,
distribution's token authentication specification, RFC 7235.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urljoin

import urllib3
from urllib3 import exceptions

from kubectl_restore.image.access import Access
from kubectl_restore.image.credentials import Credentials, find_credentials
from kubectl_restore.image.transport import READ_TIMEOUT_S, Body, Transport
from shared.errors import RestoreError, Unavailable

_ANSWER_BYTES_MAX: Final = 8 << 20
_TOKEN_LIFETIME_S: Final = 60.0
"""What a token without expires_in must be taken to last (token authentication specification)."""
_TOKEN_LIFETIME_S_MAX: Final = 30 * 86_400.0
_TOKEN_MARGIN_S: Final = 10.0
_RETRY_PAUSES_S: Final = (0.5, 2.0)
_PARAMETER: Final = re.compile(r'(?<![A-Za-z])([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')


@dataclass(frozen=True)
class Answer:
    """A response that has been read."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class _Token:
    value: str
    expires_at: float


class Registry:
    """One registry as seen from one repository of it; ``reads`` names further repositories to mount from."""

    def __init__(
        self,
        host: str,
        repository: str,
        access: Access,
        *,
        push: bool,
        delete: bool = False,
        reads: tuple[str, ...] = (),
    ) -> None:
        self.transport = Transport(host, access)
        self.place = self.transport.place
        self.host = host
        self.repository = repository
        self._authfile = access.authfile
        self._scopes = [f"repository:{repository}:pull{',push' if push else ''}{',delete' if delete else ''}"]
        self._scopes += [f"repository:{other}:pull" for other in reads if other != repository]
        self._challenge: tuple[str, dict[str, str]] | None = None
        self._token: _Token | None = None
        self._credentials: Credentials | None = None

    def url(self, path: str, **query: str) -> str:
        return f"{self.transport.base_url}/v2/{self.repository}/{path}" + (f"?{urlencode(query)}" if query else "")

    def absolute(self, url: str, location: str) -> str:
        return urljoin(url, location)

    def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> urllib3.BaseHTTPResponse:
        """Sends a request with whatever login the registry wants; the response's body is still to be read."""
        own = self.transport.is_own(url)
        response = self._send(method, url, headers, body, read_timeout_s, own)
        if response.status == 401 and own:
            challenge = _parse_challenge(response.headers.get("WWW-Authenticate", ""))
            response.drain_conn()
            response.release_conn()
            self._challenge, self._token = challenge, None
            if challenge is None:
                raise self.refusal(Answer(401, {}, b""))
            response = self._send(method, url, headers, body, read_timeout_s, own)
        return response

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        expect: tuple[int, ...],
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> Answer:
        """A small request, repeated when the network or the registry fails for a moment; only ``expect`` is success."""
        for pause_s in (*_RETRY_PAUSES_S, None):
            try:
                answer = read_answer(
                    self.open(method, url, headers=headers, body=body, read_timeout_s=read_timeout_s), self.transport
                )
            except Unavailable as error:
                if pause_s is None or error.reason != "RegistryInterrupted":
                    raise
            else:
                if answer.status in expect:
                    return answer
                if pause_s is None or (answer.status != 429 and answer.status < 500):
                    raise self.refusal(answer)
            time.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def has(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        return self.request("HEAD", self.url(f"blobs/{digest}"), expect=(200, 404)).status == 200

    def refusal(self, answer: Answer) -> RestoreError:
        """One sentence for a status that is not success."""
        where, said = f"{self.place} for {self.repository}", _message(answer.body)
        login = f"docker login {self.host}"
        if answer.status == 401:
            if self._credentials:
                text = f"{where} refuses the login from {self._credentials.origin}{said}; log in again: {login}"
            else:
                text = f"{where} wants a login{said}; log in first: {login}, or name an auth file with --authfile"
            return RestoreError("RegistryUnauthorized", text)
        if answer.status == 403:
            who = f"the login from {self._credentials.origin}" if self._credentials else "an anonymous user"
            return RestoreError("RegistryForbidden", f"{where} forbids this to {who}{said}; ask for access to it")
        if answer.status == 404:
            return RestoreError(
                "RegistryNotFound", f"{where} has no such image or repository{said}; check the reference"
            )
        if answer.status == 413:
            return RestoreError(
                "RegistryTooLarge",
                f"{where} refuses a request of this size{said}; raise its limit, or that of the proxy before it",
            )
        if answer.status == 429:
            return Unavailable("RegistryBusy", f"{where} wants fewer requests{said}; try again later")
        if answer.status >= 500:
            return Unavailable("RegistryFailed", f"{where} failed with status {answer.status}{said}; try again later")
        return RestoreError("RegistryRefused", f"{where} answered with status {answer.status}{said}")

    def _send(
        self, method: str, url: str, headers: Mapping[str, str] | None, body: Body, read_timeout_s: float, own: bool
    ) -> urllib3.BaseHTTPResponse:
        all_headers = {"User-Agent": "kubectl-restore", **(headers or {})}
        if own and self._challenge and (login := self._authorization(*self._challenge)):
            all_headers["Authorization"] = login
        return self.transport.send(method, url, headers=all_headers, body=body, read_timeout_s=read_timeout_s)

    def _authorization(self, scheme: str, parameters: dict[str, str]) -> str | None:
        self._credentials = self._credentials or find_credentials(self.host, self.repository, authfile=self._authfile)
        if scheme == "basic":
            return _basic(self._credentials) if self._credentials else None
        if self._token is None or self._token.expires_at < time.monotonic() + _TOKEN_MARGIN_S:
            self._token = self._fetch_token(parameters)
        return f"Bearer {self._token.value}"

    def _fetch_token(self, parameters: dict[str, str]) -> _Token:
        realm = parameters.get("realm", "")
        if not realm.startswith("https://") and not self.transport.base_url.startswith("http://"):
            raise RestoreError(
                "RegistryUnauthorized", f"{self.place} names no safe place to get a token from: {realm!r}"
            )
        service = {"service": parameters["service"]} if "service" in parameters else {}
        headers = {"User-Agent": "kubectl-restore"}
        login = self._credentials
        if login and login.identity_token:
            form = {"grant_type": "refresh_token", "client_id": "kubectl-restore", "scope": " ".join(self._scopes)}
            body = urlencode({**form, **service, "refresh_token": login.identity_token}).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            response = self.transport.send("POST", realm, headers=headers, body=body)
        else:
            if login:
                headers["Authorization"] = _basic(login)
            query = urlencode([*service.items(), *(("scope", scope) for scope in self._scopes)])
            response = self.transport.send("GET", f"{realm}{'&' if '?' in realm else '?'}{query}", headers=headers)
        answer = read_answer(response, self.transport)
        if answer.status != 200:
            raise self.refusal(answer)
        granted = _object(answer.body)
        value, lifetime_s = granted.get("token") or granted.get("access_token"), granted.get("expires_in")
        if not isinstance(value, str):
            raise RestoreError("RegistryUnauthorized", f"the token service of {self.place} gave no token")
        if not isinstance(lifetime_s, int | float) or not 0 <= lifetime_s <= _TOKEN_LIFETIME_S_MAX:
            lifetime_s = _TOKEN_LIFETIME_S
        return _Token(value, time.monotonic() + max(float(lifetime_s), 2 * _TOKEN_MARGIN_S))


def read_answer(response: urllib3.BaseHTTPResponse, transport: Transport) -> Answer:
    """Reads a response to its end; raises Unavailable when the connection breaks, RestoreError when it is too long."""
    try:
        body = response.read(_ANSWER_BYTES_MAX + 1) if response.status != 204 else b""
    except exceptions.HTTPError as error:
        raise transport.failure(error) from error
    if len(body) > _ANSWER_BYTES_MAX:
        response.close()
        raise RestoreError(
            "RegistryRefused", f"{transport.place} sent an answer of more than {_ANSWER_BYTES_MAX} bytes"
        )
    response.release_conn()
    return Answer(response.status, response.headers, body)


def _parse_challenge(header: str) -> tuple[str, dict[str, str]] | None:
    """RFC 7235 WWW-Authenticate; Bearer is preferred when both are offered."""
    for scheme in ("bearer", "basic"):
        found = re.search(rf"(?:^|,)\s*{scheme}\s+(.*)", header, re.IGNORECASE | re.DOTALL)
        if found:
            return scheme, {key.lower(): quoted or plain for key, quoted, plain in _PARAMETER.findall(found[1])}
    return ("basic", {}) if header.strip().lower() == "basic" else None


def _basic(login: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


def _message(body: bytes) -> str:
    """The registry's own words (distribution-spec, "Error Codes"), or nothing."""
    errors = _object(body).get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    if not isinstance(first, dict):
        return ""
    text = str(first.get("message") or first.get("code") or "")
    return f" ({text[:200]})" if text.isprintable() and text else ""


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
