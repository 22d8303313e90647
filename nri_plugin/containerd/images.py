"""Pulling images the way the kubelet does: through the CRI's image service, with the runtime's registry settings."""

from __future__ import annotations

from threading import Event

import grpc

from nri_plugin.containerd import cri_pb2 as cri
from nri_plugin.containerd.client import Containerd
from nri_plugin.containerd.rpc import code_of, details_of
from shared.errors import Unavailable

PULL_PATH = "/runtime.v1.ImageService/PullImage"
POLL_S = 0.1
"""How soon a cancelled pull ends."""


def pull(containerd: Containerd, reference: str, *, timeout_s: float, cancelled: Event) -> None:
    """Pulls ``reference``; setting ``cancelled`` ends the pull.

    Raises Unavailable: ImagePullFailed with the registry's own reason, Cancelled.
    """
    send = containerd.channel.unary_unary(
        PULL_PATH,
        request_serializer=cri.PullImageRequest.SerializeToString,
        response_deserializer=cri.PullImageResponse.FromString,
    )
    call = send.future(cri.PullImageRequest(image=cri.ImageSpec(image=reference)), timeout=timeout_s)
    finished = Event()
    call.add_done_callback(lambda _: finished.set())
    while not finished.wait(POLL_S):
        if cancelled.is_set():
            call.cancel()
            raise Unavailable("Cancelled", f"the pull of {reference} was stopped with the container that wanted it")
    error = call.exception()
    if isinstance(error, grpc.RpcError):
        if code_of(error) == grpc.StatusCode.DEADLINE_EXCEEDED:
            raise Unavailable("ImagePullFailed", f"{reference} was not pulled within {timeout_s:g} s") from error
        raise Unavailable("ImagePullFailed", f"{reference} cannot be pulled: {_reason(details_of(error))}") from error


def _reason(details: str) -> str:
    """The innermost part of containerd's chain of wrapped errors: the rest repeats the reference four times."""
    for mark in ("failed to do request: ", "failed to resolve reference ", "failed to authorize: "):
        if mark in details:
            tail = details.rpartition(mark)[2]
            return tail.partition('": ')[2] if mark.startswith("failed to resolve") and '": ' in tail else tail
    return details.rpartition("desc = ")[2]
