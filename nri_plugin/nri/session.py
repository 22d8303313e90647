"""The plugin's connection to a runtime on asyncio: owns the socket, the clock and the tasks; NRI itself is protocol.py.

What cannot wait is answered inside ``data_received``, without a task: the runtime holds a lock over the whole node
while it waits, and a plugin that takes longer than the runtime's limit (2 s unless configured) is thrown out silently,
after which containers start unadjusted. Handlers run as tasks after the answer, in order for each container and pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from nri_plugin.nri.handler import Handler
from nri_plugin.nri.nri_pb2 import ContainerAdjustment, Event
from nri_plugin.nri.protocol import (
    SUBSCRIBED,
    Configured,
    CreateContainer,
    Happened,
    PluginEvent,
    PluginProtocol,
    Registered,
    RegistrationRefused,
    Synchronized,
    Undecodable,
)
from nri_plugin.nri.tasks import OrderedTasks
from nri_plugin.nri.versions import Runtime
from shared.errors import RestoreError, Unavailable

log = logging.getLogger(__name__)

DEFAULT_REQUEST_TIMEOUT_S: Final = 2.0
"""Taken where the runtime states no limit (nri pkg/adaptation ``DefaultPluginRequestTimeout``)."""
REPLY_MARGIN_S: Final = 0.3
"""The answer leaves this long before the runtime stops waiting for it."""
_STOPPING: Final = Unavailable("NriStopping", "nri-restore is being stopped; the kubelet will try again")


class Session:
    """Connects to one runtime, as often as ``run_once`` is called; one connection at a time.

    ``runtime`` is what the connected runtime said about itself, None before; ``ready`` whether events come in.
    ``counts`` has ``ordinary``, ``owned``, ``failed``, ``late``, ``undecodable``, ``handler_errors``, ``connects``.
    """

    def __init__(
        self,
        socket_path: Path,
        name: str,
        index: str,
        handler: Handler,
        *,
        register_timeout_s: float = 10.0,
        subscribed: Iterable[Event] = SUBSCRIBED,
    ) -> None:
        """``register_timeout_s`` should exceed 5 s: the runtime takes connections in turn, each for up to that long."""
        self.socket_path = socket_path
        self.runtime: Runtime | None = None
        self.ready = False
        self.counts: Counter[str] = Counter()
        self._name = name
        self._index = index
        self._handler = handler
        self._register_timeout_s = register_timeout_s
        self._subscribed = tuple(subscribed)
        self._tasks = OrderedTasks(self._handler_failed)
        self._pending: set[_Pending] = set()
        self._connection: _Connection | None = None
        self._closing = asyncio.Event()
        PluginProtocol(name, index, self._subscribed)  # a bad name is the caller's mistake: now, not at connect

    @property
    def closing(self) -> bool:
        """Whether ``close`` was called."""
        return self._closing.is_set()

    async def wait_closing(self, timeout_s: float) -> None:
        """Sleeps ``timeout_s``, less when ``close`` is called."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), timeout_s)

    async def run_once(self, on_ready: Callable[[Runtime], None] | None = None) -> None:
        """Connects, registers and serves; returns when the connection ends or ``close`` was called.

        ``on_ready`` is called when the runtime has synchronized and events come in. Raises Unavailable with reason
        ``NriUnreachable`` (nobody listens), ``NriRefused``, ``NriTimeout`` or ``NriLost`` (ended before it began),
        and ProtocolError for what is not NRI.
        """
        if self.closing:
            return
        loop = asyncio.get_running_loop()
        protocol = PluginProtocol(self._name, self._index, self._subscribed)
        connection = _Connection(self, protocol, on_ready)
        try:
            await loop.create_unix_connection(lambda: connection, str(self.socket_path))
        except OSError as error:
            why = f"{self.socket_path}: {error.strerror or error}"
            raise Unavailable("NriUnreachable", f"no runtime listens on {why}; is it up, with NRI enabled?") from error
        self._connection = connection
        try:
            if self.closing:
                return
            await self._registered(connection)
            self.counts["connects"] += 1
            await asyncio.shield(connection.ended)
            if not connection.was_ready and not self.closing:
                raise Unavailable("NriLost", "the runtime ended the NRI connection before it synchronized the plugin")
        finally:
            connection.transport.abort()
            self._connection = None
            self.ready = False
            self.runtime = None

    async def close(self, *, grace_s: float = 2.0) -> None:
        """Answers what is being decided, then ends the connection; ``run_once`` returns and will not connect again.

        Containers of ours that come in meanwhile are refused. Handlers get what is left of ``grace_s`` to finish.
        """
        self._closing.set()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        if self._pending:
            await asyncio.wait([pending.answered for pending in self._pending], timeout=grace_s)
        for pending in list(self._pending):
            pending.fail(_STOPPING)
        connection = self._connection
        if connection is not None:
            connection.transport.close()
            await asyncio.wait([connection.ended], timeout=max(0.0, deadline - loop.time()))
            connection.transport.abort()
        await self._tasks.finish(max(0.0, deadline - loop.time()))

    async def _registered(self, connection: _Connection) -> None:
        waiting = {connection.registered, connection.configured}
        try:
            async with asyncio.timeout(self._register_timeout_s):
                while waiting:
                    done, waiting = await asyncio.wait(
                        waiting | {connection.ended}, return_when=asyncio.FIRST_COMPLETED
                    )
                    if connection.ended in done:
                        connection.ended.result()
                        if self.closing:
                            return
                        raise Unavailable("NriLost", "the runtime ended the NRI connection during the registration")
                    waiting.discard(connection.ended)
                    for future in done:
                        future.result()
        except TimeoutError as error:
            raise Unavailable(
                "NriTimeout", f"the runtime did not register the plugin within {self._register_timeout_s:g} s"
            ) from error

    # Called by _Connection, inside data_received.

    def received(self, connection: _Connection, event: PluginEvent) -> None:
        if isinstance(event, CreateContainer):
            self._create(connection, event)
        elif isinstance(event, Happened):
            self._happened(event)
        elif isinstance(event, Synchronized):
            self._synchronized(connection, event)
        elif isinstance(event, Undecodable):
            self.counts["undecodable"] += 1
        elif isinstance(event, Configured):
            self.runtime = event.runtime
            _resolve(connection.configured)
        elif isinstance(event, Registered):
            _resolve(connection.registered)
        elif isinstance(event, RegistrationRefused):
            connection.fail(Unavailable("NriRefused", f"the runtime refused to register the plugin: {event.error}"))

    def _create(self, connection: _Connection, create: CreateContainer) -> None:
        try:
            owned = self._handler.owns(create.pod, create.container)
        except Exception as error:
            self._handler_failed("owns", error)
            owned = False
        if not owned:
            self.counts["ordinary"] += 1
            connection.protocol.reply(create, None)
            return
        self.counts["owned"] += 1
        if self.closing:
            self.counts["failed"] += 1
            connection.protocol.fail(create, f"{_STOPPING.reason}: {_STOPPING.sentence}")
            return
        _Pending(self, connection, create)

    def _happened(self, event: Happened) -> None:
        handler, pod, container = self._handler, event.pod, event.container
        if event.event == Event.STOP_CONTAINER:
            self._tasks.start(container.id, "stop_container", lambda: handler.stop_container(pod, container))
        elif event.event == Event.REMOVE_CONTAINER:
            self._tasks.start(container.id, "remove_container", lambda: handler.remove_container(pod, container))
        elif event.event == Event.STOP_POD_SANDBOX:
            self._tasks.start(pod.id, "stop_pod_sandbox", lambda: handler.stop_pod_sandbox(pod))
        elif event.event == Event.REMOVE_POD_SANDBOX:
            self._tasks.start(pod.id, "remove_pod_sandbox", lambda: handler.remove_pod_sandbox(pod))

    def _synchronized(self, connection: _Connection, event: Synchronized) -> None:
        if event.state is None:
            # Half a list would make running containers look like leftovers.
            self.counts["undecodable"] += 1
            log.error("the runtime's list of pods and containers does not decode; leftovers are not looked for")
        else:
            handler, (pods, containers) = self._handler, event.state
            self._tasks.start("", "synchronize", lambda: handler.synchronize(pods, containers))
        if not self.ready and self.runtime is not None:
            self.ready = connection.was_ready = True
            if connection.on_ready is not None:
                try:
                    connection.on_ready(self.runtime)
                except Exception as error:
                    self._handler_failed("on_ready", error)

    def _handler_failed(self, what: str, error: BaseException) -> None:
        self.counts["handler_errors"] += 1
        log.error("%s failed", what, exc_info=error)


class _Connection(asyncio.Protocol):
    """One socket; every byte that comes in goes through the sans-I/O protocol, and what that wants sent is written."""

    def __init__(self, session: Session, protocol: PluginProtocol, on_ready: Callable[[Runtime], None] | None) -> None:
        loop = asyncio.get_running_loop()
        self.protocol = protocol
        self.on_ready = on_ready
        self.was_ready = False
        self.registered: asyncio.Future[None] = loop.create_future()
        self.configured: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.Transport
        self._session = session

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.protocol.register(self._session._register_timeout_s)
        self.flush()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self.protocol.feed(data):
                self._session.received(self, event)
        except RestoreError as error:
            self.fail(error)
            return
        self.flush()

    def fail(self, error: RestoreError) -> None:
        """Ends the connection; ``run_once`` raises ``error``."""
        if not self.ended.done():
            self.ended.set_exception(error)
            self.ended.exception()  # counts as retrieved: run_once may be gone, cancelled
        self.transport.abort()

    def flush(self) -> None:
        """Writes what waits to be sent; after the connection has ended it goes nowhere."""
        data = self.protocol.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        _resolve(self.ended)


class _Pending:
    """A container of ours being decided: answered by the handler or by the clock, whichever is first."""

    def __init__(self, session: Session, connection: _Connection, create: CreateContainer) -> None:
        loop = asyncio.get_running_loop()
        limit_s = create.timeout_s or DEFAULT_REQUEST_TIMEOUT_S
        if session.runtime is not None and session.runtime.request_timeout_s:
            limit_s = min(limit_s, session.runtime.request_timeout_s)
        self._limit_s = max(limit_s - REPLY_MARGIN_S, limit_s / 2)
        self._session = session
        self._connection = connection
        self._create = create
        self.answered: asyncio.Future[None] = loop.create_future()
        self._task = session._tasks.start(create.container.id, "create_container", self._decide)
        self._timer = loop.call_later(self._limit_s, self._late)
        session._pending.add(self)

    async def _decide(self) -> None:
        create = self._create
        try:
            adjustment = await self._session._handler.create_container(create.pod, create.container, self._limit_s)
        except RestoreError as error:
            self.fail(error)
        except Exception as error:
            self._session._handler_failed("create_container", error)
            self._answer(None)
        except asyncio.CancelledError:
            self.fail(Unavailable("NriInterrupted", "the decision was interrupted; the kubelet will try again"))
            raise
        else:
            self._answer(adjustment)

    def _answer(self, adjustment: ContainerAdjustment | None) -> None:
        if not self.answered.done():
            self._connection.protocol.reply(self._create, adjustment)
            self._done()

    def fail(self, error: RestoreError) -> None:
        if not self.answered.done():
            self._session.counts["failed"] += 1
            self._connection.protocol.fail(self._create, f"{error.reason}: {error.sentence}")
            self._done()

    def _late(self) -> None:
        self._session.counts["late"] += 1
        limit = f"{self._limit_s:.1f} s"
        self.fail(
            Unavailable("AnswerLate", f"no decision within {limit}, all the runtime allows; the kubelet will retry")
        )
        self._task.cancel()

    def _done(self) -> None:
        self.answered.set_result(None)
        self._timer.cancel()
        self._session._pending.discard(self)
        self._connection.flush()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
