"""A gRPC server on a unix socket that answers as a test says, for clients of containerd and the CRI."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message

Answer = Callable[[bytes, grpc.ServicerContext], Message | Iterable[Message]]
"""Gets the serialized request and the call; may abort it."""


class FakeContainerd(grpc.GenericRpcHandler):
    """``with FakeContainerd(path) as fake: fake.answer("images/Get", GetImageResponse())``."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.answers: dict[str, Answer] = {}
        self.calls: list[tuple[str, bytes, dict[str, str]]] = []
        """Method, request (the first one of a stream), metadata."""
        self.streams: dict[str, list[bytes]] = {}
        """All requests of each streaming call."""
        self.released = threading.Event()
        """Ends every answer that ``hang`` gives."""
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=[self])
        self._server.add_insecure_port(f"unix://{socket}")

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._server.stop(0).wait()

    def answer(self, method: str, *replies: Message) -> None:
        """``method`` as the last two words of its path, e.g. ``Snapshots/View``."""
        self.answers[method] = lambda request, context: list(replies) if len(replies) != 1 else replies[0]

    def fail(self, method: str, code: grpc.StatusCode, details: str = "") -> None:
        def abort(request: bytes, context: grpc.ServicerContext) -> Message:
            context.abort(code, details)

        self.answers[method] = abort

    def hang(self, method: str, reply: Message) -> None:
        """Answers only when the test ends, or when the caller has gone."""

        def wait(request: bytes, context: grpc.ServicerContext) -> Message:
            context.add_callback(self.released.set)
            self.released.wait(20)
            return reply

        self.answers[method] = wait

    def asked(self, method: str) -> list[bytes]:
        return [request for name, request, _ in self.calls if name == method]

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        package, _, method = details.method.strip("/").partition("/")
        name = f"{package.rpartition('.')[2]}/{method}"
        metadata = {key: str(value) for key, value in details.invocation_metadata}

        def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls.append((name, request, metadata))
            reply = self.answers[name](request, context)
            assert isinstance(reply, Message)
            return reply.SerializeToString()

        def streaming(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            received = [next(requests)]
            self.calls.append((name, received[0], metadata))
            if name in {"Content/Write"}:
                received += requests
                self.streams[name] = received
            reply = self.answers[name](received[0], context)
            for each in [reply] if isinstance(reply, Message) else reply:
                yield each.SerializeToString()

        if name not in self.answers:
            return None
        if name in {"Content/Read", "Content/Write"}:
            return grpc.stream_stream_rpc_method_handler(streaming)
        return grpc.unary_unary_rpc_method_handler(unary)
