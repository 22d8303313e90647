"""A registry that answers what no registry should: one kind of error, and soon."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nri_plugin.signature.hosts import Host
from nri_plugin.signature.registry import Repository
from shared.errors import Unavailable
from shared.oci import parse_reference
from tests.fuzz.bounds import bounded


@contextmanager
def registry(challenge: str, token: object) -> Iterator[str]:
    """Wants a token for everything, by ``challenge`` with the registry's own address for ``{}``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.path.startswith("/token")
            self.send_response(200 if asked else 401)
            self.send_header("WWW-Authenticate", challenge.replace("{}", base))
            body = json.dumps({"token": token}).encode() if asked else b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        base = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield base
        server.shutdown()


@pytest.mark.parametrize(
    ("challenge", "token"),
    [
        ('Bearer realm="{}/token"', "a\r\nHost: evil"),
        ('Bearer realm="{}/token"', "\u20ac"),
        ('Bearer realm="{}/token"', ["a"]),
        ('Bearer realm="file:///etc/passwd"', "a"),
        ("Bearer " + "a" * 60_000, "a"),
    ],
)
def test_odd_challenges_and_tokens_leave_the_signature_unavailable(challenge: str, token: object) -> None:
    with registry(challenge, token) as base, bounded(cpu_s=5), pytest.raises(Unavailable) as refusal:
        Repository(parse_reference("registry.example/a:1"), [Host(f"{base}/v2")]).manifest("sha256-0.sig")
    assert refusal.value.reason == "SignatureUnavailable"
    assert str(refusal.value).isprintable()
