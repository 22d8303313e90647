"""Requests that prove who sends them by a client certificate, as a kubelet's do."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nri_plugin.cluster.access import Access
from nri_plugin.cluster.api import Api, ApiRefused
from shared.errors import Unavailable

TLS = Path(__file__).resolve().parents[3] / "data/tls"
PEM = TLS / "registry.pem"
"""Certificate and key in one file, as the kubelet keeps its own (kubelet-client-current.pem)."""


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"no JSON" if self.path == "/text" else b'{"path": "%s"}' % self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of one that talks to who has a certificate of the tests' authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    context.load_verify_locations(TLS / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_client_certificate_and_key_in_one_file(server: str) -> None:
    assert Api(Access(server, TLS / "ca.pem", certificate=PEM)).get("/api/v1") == {"path": "/api/v1"}
    assert Api(Access(f"{server}/", TLS / "ca.pem", certificate=PEM, key=PEM)).get("/x") == {"path": "/x"}


def test_without_it_nothing_is_answered(server: str) -> None:
    with pytest.raises(Unavailable) as refused:
        Api(Access(server, TLS / "ca.pem", token="x")).get("/api/v1")
    assert refused.value.reason == "ApiServerUnreachable"


def test_certificate_that_cannot_be_read_is_one_sentence(server: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as refused:
        Api(Access(server, TLS / "ca.pem", certificate=tmp_path / "none")).get("/api/v1")
    assert refused.value.reason == "ApiServerUnreachable"


def test_answer_that_is_no_json_is_refused(server: str) -> None:
    with pytest.raises(ApiRefused, match="no JSON"):
        Api(Access(server, TLS / "ca.pem", certificate=PEM)).get("/text")
