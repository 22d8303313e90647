"""Registries of every kind, all of them Debian's docker-registry (distribution 2.8) on the registry machine."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from tests.e2e.node.machine import Machine
from tests.e2e.node.program import Program
from tests.e2e.node.waiting import LIMIT_S

USER: Final = "tester"
PASSWORD: Final = "secret"
_HTPASSWD: Final = f"{USER}:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
"""bcrypt of PASSWORD."""
_ISSUER: Final = "tests"


@dataclass
class Service:
    """One registry; ``settings`` are further sections of its configuration (distribution 2.8, configuration.md)."""

    machine: Machine
    port: int
    settings: str = ""
    http: str = ""
    """More of the section http, as ``, key: value``."""

    @property
    def host(self) -> str:
        return f"{self.machine.address}:{self.port}"

    @property
    def storage(self) -> Path:
        return self.machine.path(f"/var/lib/registry-{self.port}")

    def start(self) -> None:
        """Also again, after its program was killed: what it had stored is still there."""
        configuration = f"/etc/registry-{self.port}.yml"
        self.machine.path(configuration).write_text(
            f"version: 0.1\nlog: {{level: info}}\n"
            f"storage: {{filesystem: {{rootdirectory: /var/lib/registry-{self.port}}}}}\n"
            f"http: {{addr: ':{self.port}'{self.http}}}\n{self.settings}"
        )
        log = f"/var/log/registry-{self.port}.log"
        self.program: Program = self.machine.spawn(["docker-registry", "serve", configuration], log)
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                return socket.create_connection((self.machine.address, self.port), 1).close()
            except OSError:
                if time.monotonic() > deadline or not self.program.running:
                    raise AssertionError(f"the registry does not answer: {self.program.output()[-1000:]}") from None
                time.sleep(0.02)

    def requests(self) -> list[tuple[str, str, int]]:
        """Method, path with query and status of every request that it has answered."""
        found = []
        for line in self.program.output().splitlines():
            if 'msg="response completed"' in line:
                words = dict(re.findall(r'http\.(\S+?)=("[^"]*"|\S+)', line))
                found.append((words["request.method"], words["request.uri"].strip('"'), int(words["response.status"])))
        return found

    def blob(self, digest: str) -> Path:
        return self.storage / f"docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"

    def uploaded_bytes(self) -> int:
        """How much of unfinished uploads has arrived."""
        return sum(
            path.stat().st_size for path in self.storage.glob("docker/registry/v2/repositories/*/_uploads/*/data")
        )


@contextmanager
def serving(service: Service) -> Iterator[Service]:
    service.start()
    try:
        yield service
    finally:
        service.program.kill()
        service.machine.sh(f"rm -rf /var/lib/registry-{service.port} /var/log/registry-{service.port}.log")


@contextmanager
def stalling(service: Service, after_bytes: int) -> Iterator[tuple[str, threading.Event]]:
    """``HOST:PORT`` before the registry, through which no more than this goes to it until the event is set."""
    go_on = threading.Event()
    passed = 0

    def pass_on(source: socket.socket, sink: socket.socket, *, counted: bool) -> None:
        nonlocal passed
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                passed += len(piece) if counted else 0
                if counted and passed > after_bytes:
                    go_on.wait()
                sink.sendall(piece)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), socket.create_connection((service.machine.address, service.port)) as there:
                answers = threading.Thread(target=pass_on, args=(there, self.request), kwargs={"counted": False})
                answers.start()
                pass_on(self.request, there, counted=True)
                answers.join()

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        serving.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}", go_on
        finally:
            go_on.set()
            server.shutdown()
            serving.join()


def basic(machine: Machine, port: int) -> Service:
    """Wants USER and PASSWORD."""
    machine.path("/etc/registry.htpasswd").write_text(_HTPASSWD)
    return Service(machine, port, "auth: {htpasswd: {realm: tests, path: /etc/registry.htpasswd}}\n")


def self_signed(machine: Machine, port: int) -> Service:
    """Speaks TLS with the certificate /etc/registry.crt."""
    make_certificate(machine)
    return Service(machine, port, http=", tls: {certificate: /etc/registry.crt, key: /etc/registry.key}")


def make_certificate(machine: Machine) -> None:
    names = f"subjectAltName=IP:{machine.address}"
    machine.sh(
        f"[ -e /etc/registry.crt ] || openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=registry "
        f"-addext {names} -keyout /etc/registry.key -out /etc/registry.crt 2>/dev/null"
    )


def with_tokens(machine: Machine, port: int, realm: str) -> Service:
    """Takes the tokens of ``token_service``."""
    make_certificate(machine)
    return Service(
        machine,
        port,
        f"auth: {{token: {{realm: {realm}, service: registry, issuer: {_ISSUER}, "
        "rootcertbundle: /etc/registry.crt}}\n",
    )


@contextmanager
def token_service(machine: Machine, *, grants: set[str]) -> Iterator[str]:
    """A token server on this machine that gives USER the actions ``grants`` of those asked for; gives its URL."""
    make_certificate(machine)
    der = machine.sh("openssl x509 -in /etc/registry.crt -outform DER | base64 -w0").strip()

    def token(scopes: list[str]) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": [a for a in actions.split(",") if a in grants]})
        now = int(time.time())
        claims = {"iss": _ISSUER, "sub": USER, "aud": "registry", "iat": now, "nbf": now - 10, "exp": now + 300}
        header = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        signed = f"{_encoded(header)}.{_encoded({**claims, 'jti': '1', 'access': access})}"
        signature = machine.run(
            ["sh", "-c", "openssl dgst -sha256 -sign /etc/registry.key | base64 -w0"], stdin=signed.encode()
        ).stdout
        return f"{signed}.{signature.strip().translate(str.maketrans('+/', '-_')).rstrip('=')}"

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            known = self.headers.get("Authorization") == f"Basic {login}"
            scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
            body = json.dumps({"token": token(scopes)}).encode() if known else b"{}"
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/token"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _encoded(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")
