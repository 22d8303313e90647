"""Typed unary gRPC calls on a runtime's socket, without generated stubs.

    version = Method("/runtime.v1.RuntimeService/Version", cri.VersionRequest, cri.VersionResponse)
    with connect(Path("/run/containerd/containerd.sock")) as channel:
        reply = unary(channel, version)(cri.VersionRequest(), timeout_s=2)

A failed call raises grpc.RpcError, which is a grpc.Call too: ``code_of`` and ``details_of`` read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)
RequestIn = TypeVar("RequestIn", bound=Message, contravariant=True)
ReplyOut = TypeVar("ReplyOut", bound=Message, covariant=True)

MESSAGE_LIMIT_BYTES = 16 * 1024 * 1024
"""What the kubelet allows on the CRI (kubernetes pkg/kubelet/cri/remote ``maxMsgSize``) and containerd sends."""


@dataclass(frozen=True)
class Method(Generic[Request, Reply]):
    """One unary method: its path ``/package.Service/Method`` and both message types."""

    path: str
    request: type[Request]
    reply: type[Reply]


class Unary(Protocol[RequestIn, ReplyOut]):
    """A callable method of one channel; raises grpc.RpcError, DEADLINE_EXCEEDED after ``timeout_s`` seconds."""

    def __call__(
        self, request: RequestIn, *, timeout_s: float, metadata: Mapping[str, str] | None = None
    ) -> ReplyOut: ...


def connect(socket: Path) -> grpc.Channel:
    """Opens a channel to a unix socket; nothing is sent before the first call, so the socket may appear later."""
    return grpc.insecure_channel(
        f"unix://{socket}",
        options=[
            ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
            ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
            # The default back-off grows to two minutes; a restarted runtime is back within seconds.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            # The authority of a unix channel is the percent-encoded path, which Go servers refuse (grpc issue 30984).
            ("grpc.default_authority", "localhost"),
            # Two channels to one socket must not share a connection: each caller closes its own.
            ("grpc.use_local_subchannel_pool", 1),
        ],
    )


def unary(channel: grpc.Channel, method: Method[Request, Reply]) -> Unary[Request, Reply]:
    """Binds ``method`` to ``channel``."""
    send = channel.unary_unary(
        method.path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.reply.FromString,
    )

    def call(request: Request, *, timeout_s: float, metadata: Mapping[str, str] | None = None) -> Reply:
        reply: Reply = send(request, timeout=timeout_s, metadata=tuple(metadata.items()) if metadata else None)
        return reply

    return call


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """The status code of a failed call."""
    return error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN


def details_of(error: grpc.RpcError) -> str:
    """The server's sentence of a failed call."""
    return (error.details() or "") if isinstance(error, grpc.Call) else str(error)
