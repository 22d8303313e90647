"""A plain-HTTP image registry on the test network, reachable by every node and by the test process."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

from shared.errors import Unavailable
from tests.e2e.node.image import MANIFEST, OciImage
from tests.e2e.node.machine import Machine
from tests.e2e.node.network import Network
from tests.e2e.node.program import Program
from tests.e2e.node.waiting import LIMIT_S

PORT: Final = 5000
_CONFIGURATION: Final = f"""\
version: 0.1
log: {{level: info}}
storage:
  filesystem: {{rootdirectory: /var/lib/registry}}
  delete: {{enabled: true}}
http: {{addr: ':{PORT}'}}
"""


class Registry:
    def __init__(self, network: Network) -> None:
        self.machine = Machine("containerd-1.7", network, "registry")
        self.machine.files["/etc/registry.yml"] = _CONFIGURATION
        self._server: Program | None = None

    @property
    def address(self) -> str:
        """``HOST:PORT``, the first part of image references."""
        return f"{self.machine.address}:{PORT}"

    def start(self) -> None:
        self.machine.start()
        try:
            self.serve()
        except BaseException:
            self.machine.stop()
            raise

    def serve(self) -> None:
        """Starts the server (again); what was pushed before is still there."""
        self._server = self.machine.spawn(["docker-registry", "serve", "/etc/registry.yml"], "/var/log/registry.log")
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                self.request("GET", "/v2/")
                return
            except OSError as error:
                if time.monotonic() > deadline or not self._server.running:
                    raise Unavailable(
                        "RegistryDidNotStart", f"the registry does not answer: {self._server.output()[-1000:]}"
                    ) from error
                time.sleep(0.02)

    def pause_service(self) -> None:
        """Ends the server and keeps its storage: connections are refused until ``serve``."""
        if self._server:
            self._server.stop()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, connections are taken and nothing is answered: pulls hang."""
        assert self._server
        self._server.pause()
        try:
            yield
        finally:
            self._server.resume()

    def stop(self) -> None:
        self.machine.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers with lower-case names, and body of one request; raises OSError when nothing answers."""
        connection = http.client.HTTPConnection(self.machine.address, PORT, timeout=300)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    def push(self, image: OciImage, name: str) -> str:
        """Uploads ``image`` as ``REPOSITORY:TAG``; returns the full reference with address and tag."""
        repository, _, tag = name.partition(":")
        for digest, blob in image.blobs.items():
            status, headers, body = self.request("POST", f"/v2/{repository}/blobs/uploads/", b"")
            _expect(status, 202, body)
            path = headers["location"].partition("/v2/")[2]
            glue = "&" if "?" in path else "?"
            status, _, body = self.request(
                "PUT", f"/v2/{path}{glue}digest={digest}", blob, {"Content-Type": "application/octet-stream"}
            )
            _expect(status, 201, body)
        media_type = json.loads(image.manifest).get("mediaType", MANIFEST)
        status, _, body = self.request(
            "PUT", f"/v2/{repository}/manifests/{tag or 'latest'}", image.manifest, {"Content-Type": media_type}
        )
        _expect(status, 201, body)
        return f"{self.address}/{repository}:{tag or 'latest'}"

    def delete(self, repository: str, digest: str) -> None:
        """Removes one manifest, so that it cannot be pulled any more."""
        status, _, body = self.request("DELETE", f"/v2/{repository}/manifests/{digest}")
        _expect(status, 202, body)


def _expect(status: int, wanted: int, body: bytes) -> None:
    if status != wanted:
        raise Unavailable("RegistryRefused", f"the registry answered {status}: {body.decode(errors='replace')[:300]}")
