"""What a user of the session implements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nri_plugin.nri.nri_pb2 import Container, ContainerAdjustment, PodSandbox


class Handler(Protocol):
    """What a session tells. All of it runs on the event loop and must not block."""

    def owns(self, pod: PodSandbox, container: Container) -> bool:
        """Whether this container concerns the plugin; called for every container of the node, so microseconds count.

        When it raises, the container is treated as an ordinary one.
        """

    async def create_container(
        self, pod: PodSandbox, container: Container, limit_s: float
    ) -> ContainerAdjustment | None:
        """Decides about a container that ``owns`` claimed, within ``limit_s`` seconds: before the runtime's deadline.

        RestoreError fails the creation with ``Reason: sentence``. Any other exception is logged and the container is
        created as it is. Past ``limit_s`` the creation fails and this is cancelled.
        """

    async def synchronize(self, pods: Sequence[PodSandbox], containers: Sequence[Container]) -> None:
        """Gets all that runs, after every connect; its code up to the first await runs before any later event's."""

    async def stop_container(self, pod: PodSandbox, container: Container) -> None:
        """The container's process has ended (not: is about to). May come for ids never created, and only once."""

    async def remove_container(self, pod: PodSandbox, container: Container) -> None:
        """The container is being removed. May come without a stop, and for ids whose creation failed."""

    async def stop_pod_sandbox(self, pod: PodSandbox) -> None:
        """The pod is being torn down."""

    async def remove_pod_sandbox(self, pod: PodSandbox) -> None:
        """The pod is being removed; only when subscribed to."""
