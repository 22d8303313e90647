"""Our NRI session connected to a test node's containerd, from the test's own process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, TypeAlias

from nri_plugin.nri.nri_pb2 import Container, ContainerAdjustment, PodSandbox
from nri_plugin.nri.reconnect import run_forever
from nri_plugin.nri.session import Session
from shared.errors import RestoreError
from tests.e2e.node.waiting import wait_for

Decision: TypeAlias = Callable[[], Awaitable[ContainerAdjustment | None]]


SOCKET: Final = "/run/nri/nri.sock"
"""On the node; the host cannot follow the link /var/run, whose target is absolute."""


class ObservedSession:
    """``with ObservedSession(socket) as session: …``; a handler that writes down what it hears, in a thread.

    ``decisions`` makes containers of that name ours and decides about them; all others are ordinary.
    """

    def __init__(self, socket_path: Path) -> None:
        self.decisions: dict[str, Decision] = {}
        self.heard: list[tuple[str, str]] = []
        """(event, name of the container or pod; synchronize: the sorted names of the containers)."""
        self.asked: list[str] = []
        """Names of all containers that were about to be created, ordinary ones included."""
        self.connections: list[str] = []
        """``connected`` and ``lost``, in order."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.session = Session(socket_path, "nri-restore-test", "50", self)

    def __enter__(self) -> ObservedSession:
        self._thread.start()
        self._running = asyncio.run_coroutine_threadsafe(
            run_forever(
                self.session,
                first_backoff_s=0.2,
                on_connected=lambda _: self.connections.append("connected"),
                on_lost=self._lost,
            ),
            self._loop,
        )
        try:
            wait_for(lambda: self.connections == ["connected"], "the session to be registered")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self.session.close(), self._loop).result(10)
        try:
            self._running.result(10)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    def _lost(self, error: RestoreError | None) -> None:
        if error is None:
            self.connections.append("lost")

    def owns(self, pod: PodSandbox, container: Container) -> bool:
        self.asked.append(container.name)
        return container.name in self.decisions

    async def create_container(
        self, pod: PodSandbox, container: Container, limit_s: float
    ) -> ContainerAdjustment | None:
        self.heard.append(("create", container.name))
        return await self.decisions[container.name]()

    async def synchronize(self, pods: Sequence[PodSandbox], containers: Sequence[Container]) -> None:
        self.heard.append(("synchronize", " ".join(sorted(container.name for container in containers))))

    async def stop_container(self, pod: PodSandbox, container: Container) -> None:
        self.heard.append(("stop", container.name))

    async def remove_container(self, pod: PodSandbox, container: Container) -> None:
        self.heard.append(("remove", container.name))

    async def stop_pod_sandbox(self, pod: PodSandbox) -> None:
        self.heard.append(("stop pod", pod.name))

    async def remove_pod_sandbox(self, pod: PodSandbox) -> None:
        self.heard.append(("remove pod", pod.name))
