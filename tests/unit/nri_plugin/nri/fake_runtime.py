"""A runtime's side of NRI for tests: a real unix socket, calls on connection 1, registration on connection 2.

It frames as Go does, whose ttrpc writes through a bufio.Writer of 4096 bytes: each flush of that is one mux frame, so
a message's first 4096 bytes (header included) are a frame, and the rest is another. And it reads as Go does: a frame
larger than what is left of the reader's buffer ends the connection (mux.go ``conn.Read``), see ``GoReader``.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import Message

from nri_plugin.nri.nri_pb2 import (
    ConfigureRequest,
    ConfigureResponse,
    RegisterPluginRequest,
    SynchronizeRequest,
    SynchronizeResponse,
)
from nri_plugin.ttrpc.ttrpc_pb2 import Request, Response, Status

MUX = struct.Struct(">II")
TTRPC = struct.Struct(">IIBB")
BUFIO_BYTES = 4096
PLUGIN = "nri.pkg.api.v1alpha1.Plugin"
PATIENCE_S = 60.0


class GoWouldClose(Exception):
    """The real runtime would have ended the connection here."""


class GoReader:
    """Go's bufio.Reader(4096) over its mux connection, which gives one frame a read and fails when it does not fit."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._buffered = b""

    async def read_full(self, size: int) -> bytes:
        """io.ReadFull of ``size`` bytes: from the buffer, else straight into the caller's when that is the larger."""
        result = b""
        while len(result) < size:
            if self._buffered:
                taken = self._buffered[: size - len(result)]
                self._buffered = self._buffered[len(taken) :]
                result += taken
                continue
            missing = size - len(result)
            frame = await self.frames.get()
            if len(frame) > max(missing, BUFIO_BYTES):
                raise GoWouldClose(f"a frame of {len(frame)} bytes where the reader has room for {missing}")
            if missing >= BUFIO_BYTES:
                result += frame
            else:
                self._buffered = frame
        return result


def go_frames(connection: int, message: bytes) -> bytes:
    """Frames ``message`` as Go's bufio.Writer does."""
    cuts = [message[:BUFIO_BYTES], message[BUFIO_BYTES:]] if len(message) > BUFIO_BYTES else [message]
    return b"".join(MUX.pack(connection, len(cut)) + cut for cut in cuts)


def request_bytes(
    stream_id: int, method: str, payload: bytes, *, timeout_s: float = 2.0, service: str = PLUGIN
) -> bytes:
    body = Request(service=service, method=method, payload=payload, timeout_nano=int(timeout_s * 1e9))
    encoded = body.SerializeToString()
    return TTRPC.pack(len(encoded), stream_id, 1, 0) + encoded


@dataclass
class Plugin:
    """One connected plugin, as the runtime sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    registration: RegisterPluginRequest | None = None
    events: int = 0
    _next_stream_id: int = 1
    _answers: dict[int, asyncio.Future[Response]] = field(default_factory=dict)
    _called: GoReader = field(default_factory=GoReader)
    _calling: GoReader = field(default_factory=GoReader)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(
        self, method: str, message: Message | bytes, *, timeout_s: float = 2.0, service: str = PLUGIN
    ) -> Response:
        """Calls the plugin and tells it the limit ``timeout_s``, past which the real runtime would throw it out.

        A busy machine may take longer for the largest messages; raises TimeoutError past PATIENCE_S.
        """
        payload = message if isinstance(message, bytes) else message.SerializeToString()
        stream_id = self._next_stream_id
        self._next_stream_id += 2
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._answers[stream_id] = future
        self.writer.write(go_frames(1, request_bytes(stream_id, method, payload, timeout_s=timeout_s, service=service)))
        async with asyncio.timeout(PATIENCE_S):
            return await future

    async def configure(self, request: ConfigureRequest) -> int:
        response = await self.call("Configure", request)
        assert response.status.code == 0, response
        self.events = ConfigureResponse.FromString(response.payload).events
        return self.events

    async def synchronize(self, *chunks: SynchronizeRequest) -> list[SynchronizeResponse]:
        answers = []
        for chunk in chunks:
            response = await self.call("Synchronize", chunk)
            assert response.status.code == 0, response
            answers.append(SynchronizeResponse.FromString(response.payload))
        return answers

    async def read_frames(self) -> None:
        try:
            while True:
                connection, length = MUX.unpack(await self.reader.readexactly(MUX.size))
                frame = await self.reader.readexactly(length)
                {1: self._called, 2: self._calling}[connection].frames.put_nowait(frame)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended.set()
            self.writer.close()

    async def read_answers(self) -> None:
        while True:
            length, stream_id, kind, _ = TTRPC.unpack(await self._called.read_full(TTRPC.size))
            payload = await self._called.read_full(length)
            assert kind == 2
            self._answers.pop(stream_id).set_result(Response.FromString(payload))

    async def read_registration(self) -> tuple[int, RegisterPluginRequest]:
        length, stream_id, kind, _ = TTRPC.unpack(await self._calling.read_full(TTRPC.size))
        request = Request.FromString(await self._calling.read_full(length))
        assert (kind, request.service, request.method) == (1, "nri.pkg.api.v1alpha1.Runtime", "RegisterPlugin")
        self.registration = RegisterPluginRequest.FromString(request.payload)
        return stream_id, self.registration

    def answer_registration(self, stream_id: int, code: int = 0, text: bytes = b"") -> None:
        response = Response(status=Status(code=code, message=text)) if code else Response()
        encoded = response.SerializeToString()
        self.writer.write(go_frames(2, TTRPC.pack(len(encoded), stream_id, 2, 0) + encoded))


class FakeRuntime:
    """Listens on ``path``; ``serve`` gets every plugin that connects, and plays the runtime."""

    def __init__(self, path: Path, serve: Callable[[Plugin], Awaitable[None]]) -> None:
        self.path = path
        self.plugins: list[Plugin] = []
        self.errors: list[BaseException] = []
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> FakeRuntime:
        self._server = await asyncio.start_unix_server(self._connected, str(self.path))
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        for plugin in self.plugins:
            plugin.writer.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.path.unlink(missing_ok=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        plugin = Plugin(reader, writer)
        self.plugins.append(plugin)
        self._start(plugin, plugin.read_frames)
        self._start(plugin, plugin.read_answers)
        self._start(plugin, lambda: self._serve(plugin))

    def _start(self, plugin: Plugin, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            try:
                await work()
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                self.errors.append(error)
                plugin.writer.close()

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


CONTAINERD_17 = ConfigureRequest(runtime_name="containerd", runtime_version="1.7.24~ds1")


async def handshake(plugin: Plugin, configure: ConfigureRequest = CONTAINERD_17, *state: SynchronizeRequest) -> None:
    """Registration, Configure and Synchronize as every containerd does them."""
    stream_id, _ = await plugin.read_registration()
    plugin.answer_registration(stream_id)
    await plugin.configure(configure)
    await plugin.synchronize(*(state or (SynchronizeRequest(),)))
