"""A registry of a few lines, for answers that FakeRegistry does not give."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[str, str, Message], tuple[int, str, bytes]]
"""For the registry's address, and the path and headers of a request: status, challenge and body."""


@contextmanager
def registry_of(answer: Answer) -> Iterator[str]:
    """Its address, ``http://127.0.0.1:PORT``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, challenge, body = answer(base, self.path, self.headers)
            self.send_response(status)
            self.send_header("WWW-Authenticate", challenge)
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
