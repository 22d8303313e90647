"""What stands behind the stub API server: something that runs pods, takes checkpoints and executes commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tests.support.kube_objects import Object

if TYPE_CHECKING:
    from tests.support.kube_api import KubeApi


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; a dict becomes JSON."""

    status: int
    body: Any = ""
    content_type: str = ""
    delay_s: float = 0

    @property
    def encoded(self) -> tuple[str, bytes]:
        if isinstance(self.body, bytes):
            return self.content_type or "application/octet-stream", self.body
        if isinstance(self.body, str):
            return self.content_type or "text/plain; charset=utf-8", self.body.encode()
        return self.content_type or "application/json", json.dumps(self.body).encode()


class HangUp(Exception):
    """Ends a stream as a broken connection does: no status, no closing frame."""


@dataclass(frozen=True)
class Streams:
    """The other end of an exec; writing raises OSError once the client is gone."""

    stdout: Callable[[bytes], None]
    stderr: Callable[[bytes], None]
    stdin: Callable[[], bytes | None] | None
    """Next piece of standard input, None at its end; None when the client gives none."""


class Backend(Protocol):
    def attach(self, api: KubeApi) -> None:
        """Called once, before anything else; the backend reports pod statuses through ``api``."""

    def pod_created(self, pod: Object) -> None:
        """A pod is bound to a node; returns at once."""

    def pod_deleted(self, pod: Object, grace_s: int) -> None:
        """The pod is to end; the backend calls ``api.forget_pod`` when it has."""

    def checkpoint(self, node: str, namespace: str, pod: str, container: str, timeout: str) -> Answer:
        """What the kubelet answers to POST /checkpoint/…"""

    def exec(self, pod: Object, container: str, command: list[str], streams: Streams) -> int:
        """Runs to the end and gives the exit code; raises HangUp."""

    def log(self, pod: Object, container: str, *, follow: bool, previous: bool) -> Iterator[bytes]:
        """The container's output."""

    def close(self) -> None:
        """Ends everything it started."""
