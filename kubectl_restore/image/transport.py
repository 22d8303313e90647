"""HTTP to one registry: TLS or plain, proxies, and network failures as one sentence that says what to do."""

from __future__ import annotations

import os
import ssl
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Final
from urllib.parse import urlsplit

import urllib3
from urllib3 import exceptions

from kubectl_restore.image.access import Access
from shared.errors import RestoreError, Unavailable
from shared.tls import client_context

CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 60.0
_REDIRECTS: Final = urllib3.Retry(total=5, connect=False, read=False, redirect=5, status=False, other=False)
"""Blob downloads lead to object stores; urllib3 drops the Authorization header when the host changes."""

Body = bytes | Callable[[], Iterator[bytes]] | None
"""A stream is given as a function, so that a request refused for want of a login can be sent again."""


class Transport:
    """Connections to ``host`` (host[:port])."""

    def __init__(self, host: str, access: Access) -> None:
        self.host = host
        self.place = f"the registry {host}"
        self._endpoint = "registry-1.docker.io" if host == "docker.io" else host
        self._access = access

    @cached_property
    def base_url(self) -> str:
        return f"{self._scheme}://{self._endpoint}"

    def is_own(self, url: str) -> bool:
        """Whether ``url`` leads to the registry itself, so that its login may be sent there."""
        return url.startswith(f"{self.base_url}/")

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: Body = None,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> urllib3.BaseHTTPResponse:
        """One request; the response's body is still to be read.

        Raises Unavailable: RegistryUnreachable, RegistryInterrupted; RestoreError: RegistryCertificate, RegistryNotTls.
        """
        follow = method in ("GET", "HEAD")
        try:
            return self._pool.urlopen(
                method,
                url,
                headers=dict(headers),
                body=body() if callable(body) else body,
                preload_content=False,
                decode_content=False,
                redirect=follow,
                retries=_REDIRECTS if follow else False,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s),
            )
        except exceptions.HTTPError as error:
            raise self.failure(error) from error

    def failure(self, error: exceptions.HTTPError) -> RestoreError:
        """The sentence for what urllib3 raised."""
        if isinstance(error, exceptions.MaxRetryError) and isinstance(error.reason, exceptions.HTTPError):
            error = error.reason
        if isinstance(error, exceptions.ProxyError):
            return Unavailable("RegistryUnreachable", f"cannot reach {self.place} through the proxy: {_cause(error)}")
        if isinstance(error, exceptions.SSLError):
            return self._tls_failure(error)
        if isinstance(error, exceptions.NameResolutionError):
            return Unavailable("RegistryUnreachable", f"there is no host named {self.host}; check the image reference")
        if isinstance(error, exceptions.NewConnectionError):
            return Unavailable(
                "RegistryUnreachable", f"cannot reach {self.place}: {_cause(error)}; is it running there?"
            )
        if isinstance(error, exceptions.ConnectTimeoutError):
            return Unavailable(
                "RegistryUnreachable",
                f"cannot reach {self.place}: no answer in {CONNECT_TIMEOUT_S:g} s; is it running there?",
            )
        if isinstance(error, exceptions.ReadTimeoutError):
            return Unavailable("RegistryInterrupted", f"{self.place} stopped answering; try again")
        return Unavailable(
            "RegistryInterrupted", f"the connection to {self.place} broke off: {_cause(error)}; try again"
        )

    def _tls_failure(self, error: exceptions.SSLError) -> RestoreError:
        cause = error.args[0] if error.args else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RestoreError(
                "RegistryCertificate",
                f"the certificate of {self.place} is not trusted ({cause.verify_message}); "
                "name its CA with --ca-file, or accept it with --no-tls-verify",
            )
        return RestoreError(
            "RegistryNotTls", f"{self.place} does not speak TLS ({_cause(error)}); use --plain-http if that is meant"
        )

    @cached_property
    def _scheme(self) -> str:
        if self._access.plain_http == "always":
            return "http"
        if self._access.plain_http == "never" and not _is_loopback(self._endpoint):
            return "https"
        try:
            response = self.send("GET", f"https://{self._endpoint}/v2/", headers={})
            response.drain_conn()
            response.release_conn()
        except RestoreError as error:
            return (
                "http" if error.reason in ("RegistryNotTls", "RegistryUnreachable", "RegistryInterrupted") else "https"
            )
        return "https"

    @cached_property
    def _pool(self) -> urllib3.PoolManager:
        proxies = urllib.request.getproxies()
        bypass = _is_loopback(self._endpoint) or urllib.request.proxy_bypass(
            urlsplit(f"//{self._endpoint}").hostname or ""
        )
        proxy = None if bypass else proxies.get("http" if self._access.plain_http == "always" else "https")
        if proxy:
            return urllib3.ProxyManager(proxy, ssl_context=self._tls, maxsize=2)
        return urllib3.PoolManager(ssl_context=self._tls, maxsize=2)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The system's trust store or SSL_CERT_FILE (OpenSSL reads that itself), and the CA file besides."""
        context = client_context()
        if self._access.ca_file:
            try:
                context.load_verify_locations(self._access.ca_file)
            except OSError as error:
                raise RestoreError(
                    "CaFileInvalid", f"cannot use the CA file {self._access.ca_file}: {error.strerror or error}"
                ) from error
        if not self._access.verify_tls:
            urllib3.disable_warnings(exceptions.InsecureRequestWarning)  # the user knows: it was asked for
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(f"//{endpoint}").hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _cause(error: BaseException) -> str:
    """The operating system's own words at the bottom of urllib3's nested exceptions."""
    innermost: BaseException = error
    while True:
        inner = innermost.__cause__ or next((arg for arg in innermost.args if isinstance(arg, BaseException)), None)
        if inner is None or inner is innermost:
            break
        innermost = inner
    if isinstance(innermost, ssl.SSLError):
        return (innermost.reason or "handshake failed").replace("_", " ").lower()
    if isinstance(innermost, OSError) and innermost.errno:
        return os.strerror(innermost.errno).lower()
    return str(innermost).rstrip(".") or type(innermost).__name__
