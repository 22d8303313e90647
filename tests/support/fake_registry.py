"""A registry inside the test process, with the faults that a real one has on a bad day.

Speaks what the OCI distribution-spec v1.1 asks for pushing and pulling; ``Faults`` makes it drop connections, forget
uploads, refuse sizes, want logins. Keeps everything in memory and writes down every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

_TO_THE_END = 1 << 62
"""As the length of a request that does not say it (Transfer-Encoding: chunked)."""
TLS = Path(__file__).resolve().parents[1] / "data" / "tls"


@dataclass
class Faults:
    drop_patch_after: list[int] = field(default_factory=list)
    """For each PATCH in turn: hang up when this many bytes of it have arrived."""
    keep_nothing: bool = False
    """Every PATCH is accepted, and none of its bytes kept."""
    forget_dropped: bool = False
    """Whether an upload is unknown after its connection broke, as in distribution 2.x."""
    largest_body: int | None = None
    """Longer requests are answered with 413."""
    fail: dict[str, list[int]] = field(default_factory=dict)
    """For each request of a method in turn: answer with this status (0: as usual)."""
    mount: bool = True
    lose_commit_answer: int = 0
    """How often the answer to a committed upload gets lost."""
    cut_blobs: int = 0
    """How many downloads of a blob break off in the middle."""
    wrong_digest: bool = False
    """Answers requests for a manifest by digest with another manifest."""
    forbid: str = ""
    """A repository that may not be pushed to."""


@dataclass
class FakeRegistry:
    """A context manager; ``auth`` is what it wants (tester:secret), ``tls`` whether it speaks TLS."""

    auth: str = ""
    tls: bool = False
    faults: Faults = field(default_factory=Faults)
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    token_lifetime_s: int = 300
    tokens: dict[str, str] = field(default_factory=dict)
    """Token by scope, as handed out."""

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"registry": self}))
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(TLS / "registry.pem")
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add_blob(self, repository: str, content: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self.blobs[repository, digest] = content
        return digest

    def add_manifest(self, repository: str, tag: str, content: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self.manifests[repository, tag] = self.manifests[repository, digest] = content
        return digest

    def manifest(self, repository: str, tag: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.manifests[repository, tag])
        return document

    def blob(self, repository: str, descriptor: dict[str, Any]) -> bytes:
        return self.blobs[repository, descriptor["digest"]]

    def count(self, method: str, pattern: str = "") -> int:
        return sum(verb == method and re.search(pattern, path) is not None for verb, path, _ in self.requests)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests; anything else fails them by the answer that is missing."""


class _Handler(BaseHTTPRequestHandler):
    registry: FakeRegistry
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, ssl.SSLError):
            self.close_connection = True

    def do_GET(self) -> None:
        self._dispatch()

    do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _dispatch(self) -> None:
        registry, faults = self.registry, self.registry.faults
        registry.requests.append((self.command, self.path, dict(self.headers)))
        url = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        length = _TO_THE_END if chunked else int(self.headers.get("Content-Length") or 0)
        if faults.largest_body is not None and length > faults.largest_body:
            self.close_connection = True
            return self._answer(413)
        if url.path == "/token":
            return self._token(parse_qs(url.query).get("scope", []), length)
        if not self._authorized():
            self._read(length)
            return self._challenge()
        planned = faults.fail.get(self.command)
        if planned and (status := planned.pop(0)):
            self._read(length)
            return self._answer(status, b'{"errors":[{"code":"UNKNOWN","message":"planned fault"}]}')
        if url.path == "/v2/":
            return self._answer(200)
        found = re.fullmatch(r"/v2/(.+)/(blobs/uploads|blobs|manifests)/([^/]*)", url.path)
        if not found:
            return self._answer(404)
        repository, kind, last = found.groups()
        if kind == "blobs/uploads":
            if faults.forbid == repository:
                self._read(length)
                return self._answer(403, b'{"errors":[{"code":"DENIED","message":"requested access is denied"}]}')
            return self._upload(repository, last, length)
        if kind == "blobs":
            return self._blob(repository, last)
        return self._manifest(repository, last, length)

    def _upload(self, repository: str, session: str, length: int) -> None:
        registry, faults = self.registry, self.registry.faults
        if self.command == "POST":
            wanted, origin = self.query.get("mount", ""), self.query.get("from", "")
            if faults.mount and (origin, wanted) in registry.blobs:
                registry.blobs[repository, wanted] = registry.blobs[origin, wanted]
                return self._answer(201, headers={"Location": f"/v2/{repository}/blobs/{wanted}"})
            session = secrets.token_hex(8)
            registry.uploads[session] = bytearray()
            return self._progress(repository, session, 202)
        if session not in registry.uploads:
            self._read(length)
            return self._answer(404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"blob upload unknown"}]}')
        content = registry.uploads[session]
        if self.command == "GET":
            return self._progress(repository, session, 204)
        if self.command == "DELETE":
            del registry.uploads[session]
            return self._answer(204)
        if self.command == "PATCH":
            start = int(self.headers.get("Content-Range", "0-").partition("-")[0])
            if start != len(content):
                self._read(length)
                return self._answer(416)
            if faults.drop_patch_after and (limit := faults.drop_patch_after.pop(0)) < length:
                content += self._read(limit)
                if faults.forget_dropped:
                    del registry.uploads[session]
                raise ConnectionAbortedError
            taken = self._read(length)
            content += b"" if faults.keep_nothing else taken
            return self._progress(repository, session, 202)
        digest = self.query["digest"]
        content += self._read(length)
        if "sha256:" + hashlib.sha256(content).hexdigest() != digest:
            return self._answer(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"digest does not match"}]}')
        registry.blobs[repository, digest] = bytes(content)
        del registry.uploads[session]
        if faults.lose_commit_answer:
            faults.lose_commit_answer -= 1
            raise ConnectionAbortedError
        return self._answer(201, headers={"Location": f"/v2/{repository}/blobs/{digest}"})

    def _progress(self, repository: str, session: str, status: int) -> None:
        received = len(self.registry.uploads[session])
        location = f"/v2/{repository}/blobs/uploads/{session}?state={received}"
        self._answer(status, headers={"Location": location, "Range": f"0-{max(received - 1, 0)}"})

    def _blob(self, repository: str, digest: str) -> None:
        content = self.registry.blobs.get((repository, digest))
        if content and self.command == "GET" and self.registry.faults.cut_blobs and len(content) > 100:
            self.registry.faults.cut_blobs -= 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            raise ConnectionAbortedError
        self._answer(404 if content is None else 200, content or b"")

    def _manifest(self, repository: str, name: str, length: int) -> None:
        if self.command == "PUT":
            digest = self.registry.add_manifest(repository, name, self._read(length))
            return self._answer(201, headers={"Docker-Content-Digest": digest})
        content = self.registry.manifests.get((repository, name))
        if content is None:
            return self._answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        if self.command == "DELETE":
            for key in [key for key, other in self.registry.manifests.items() if key[0] == repository]:
                if self.registry.manifests[key] == content:
                    del self.registry.manifests[key]
            return self._answer(202)
        if self.registry.faults.wrong_digest and name.startswith("sha256:"):
            content += b" "
        return self._answer(200, content, {"Content-Type": json.loads(content).get("mediaType", "")})

    def _authorized(self) -> bool:
        given = self.headers.get("Authorization", "")
        if self.registry.auth == "basic":
            return given == "Basic " + base64.b64encode(b"tester:secret").decode()
        if self.registry.auth == "bearer":
            return given.removeprefix("Bearer ") in self.registry.tokens.values()
        return True

    def _challenge(self) -> None:
        scheme = "https" if self.registry.tls else "http"
        realm = f'Bearer realm="{scheme}://{self.registry.host}/token",service="fake registry"'
        header = 'Basic realm="fake"' if self.registry.auth == "basic" else realm
        self._answer(
            401,
            b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}',
            {"WWW-Authenticate": header},
        )

    def _token(self, scopes: list[str], length: int) -> None:
        form = parse_qs(self._read(length).decode())
        given = self.headers.get("Authorization", "")
        known = given == "Basic " + base64.b64encode(b"tester:secret").decode()
        if not known and form.get("refresh_token") != ["an-identity"]:
            return self._answer(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}')
        scope = " ".join(scopes or form["scope"])
        self.registry.tokens[scope] = secrets.token_hex(8)
        answer = {"token": self.registry.tokens[scope], "expires_in": self.registry.token_lifetime_s}
        return self._answer(200, json.dumps(answer).encode())

    def _read(self, length: int) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(length)
        content = bytearray()
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
            if len(content) >= length:
                return bytes(content[:length])
        self.rfile.readline()
        return bytes(content)

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
