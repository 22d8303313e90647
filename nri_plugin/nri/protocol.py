"""The plugin's side of NRI, sans-I/O: registration, subscription, synchronization and events over one connection.

Bytes of the socket go into ``feed``, events come out, and ``data_to_send`` gives the bytes to write. All that needs no
decision is answered in here at once: Configure, every chunk of Synchronize, Stop and Remove, calls nobody knows, and
events that do not decode. Only CreateContainer waits for ``reply`` or ``fail``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from google.protobuf.message import DecodeError, Message

from nri_plugin.nri.nri_pb2 import (
    ConfigureRequest,
    ConfigureResponse,
    Container,
    ContainerAdjustment,
    CreateContainerRequest,
    CreateContainerResponse,
    Event,
    EventRequest,
    PodSandbox,
    RegisterPluginRequest,
    StateChangeEvent,
    SynchronizeMore,
    SynchronizeRequest,
    SynchronizeResponse,
)
from nri_plugin.nri.versions import Runtime, event_mask, ignored_fields, nri_version
from nri_plugin.ttrpc.mux import PLUGIN_SERVICE, RUNTIME_SERVICE, Demultiplexer, frames
from nri_plugin.ttrpc.protocol import Client, Code, RequestReceived, Server

log = logging.getLogger(__name__)

SUBSCRIBED: Final = (Event.CREATE_CONTAINER, Event.STOP_CONTAINER, Event.REMOVE_CONTAINER, Event.STOP_POD_SANDBOX)
"""The fewest events that do: each costs every container of the node some 0.2 ms under the runtime's global NRI lock."""

NRI_API: Final = "v0.12.2"
"""The NRI whose messages nri.proto follows; the runtime only logs it."""

_PLUGIN: Final = "nri.pkg.api.v1alpha1.Plugin"
_RUNTIME: Final = "nri.pkg.api.v1alpha1.Runtime"
# Calls of their own since NRI 0.12; StopContainer always. Older runtimes wrap the others in StateChange.
_EVENT_CALLS: Final = {
    "StopContainer": Event.STOP_CONTAINER,
    "RemoveContainer": Event.REMOVE_CONTAINER,
    "StopPodSandbox": Event.STOP_POD_SANDBOX,
    "RemovePodSandbox": Event.REMOVE_POD_SANDBOX,
}
# nri pkg/api/plugin.go CheckPluginName and CheckPluginIndex; a runtime older than 0.12 would accept any name.
_NAME: Final = re.compile(r"[A-Za-z0-9_.+-]+")
_INDEX: Final = re.compile(r"[0-9]{2}")


@dataclass(frozen=True, slots=True)
class Registered:
    """The runtime accepted the registration. Configured may come before or after it."""


@dataclass(frozen=True, slots=True)
class RegistrationRefused:
    """The runtime refused the registration; nothing more will come."""

    error: str


@dataclass(frozen=True, slots=True)
class Configured:
    """The runtime said what it is, and was told the subscription."""

    runtime: Runtime


@dataclass(frozen=True, slots=True)
class Synchronized:
    """All pods and containers the runtime has; events follow. ``None`` when the list did not decode completely."""

    state: tuple[Sequence[PodSandbox], Sequence[Container]] | None


@dataclass(frozen=True, slots=True)
class CreateContainer:
    """A container is about to be created; the runtime waits for ``reply`` or ``fail`` for ``timeout_s`` (0: unsaid)."""

    stream_id: int
    pod: PodSandbox
    container: Container
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Happened:
    """Something happened to a pod or a container (empty message for a pod's event); already answered.

    ``event`` is a number: a newer runtime may send one that no Event has.
    """

    event: int
    pod: PodSandbox
    container: Container


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A call that could not be decoded; answered as if nothing were wanted of it."""

    method: str


PluginEvent: TypeAlias = (
    Registered | RegistrationRefused | Configured | Synchronized | CreateContainer | Happened | Undecodable
)


class PluginProtocol:
    """One connection to a runtime. Not reusable: a new connection needs a new object."""

    def __init__(self, name: str, index: str, subscribed: Iterable[Event] = SUBSCRIBED) -> None:
        """Raises ValueError for a name or a two-digit index the runtime would refuse."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"plugin name {name!r} may only have letters, digits and _.+-")
        if not _INDEX.fullmatch(index):
            raise ValueError(f"plugin index {index!r} must be two digits")
        self._name = name
        self._index = index
        self._subscribed = tuple(subscribed)
        self._demultiplexer = Demultiplexer()
        self._server = Server()
        self._client = Client()
        self._registration = 0
        self._runtime: Runtime | None = None
        self._pods: list[PodSandbox] = []
        self._containers: list[Container] = []
        self._complete = True

    def register(self, timeout_s: float) -> None:
        """Asks to be registered; Registered or RegistrationRefused follows, Configured maybe before it."""
        request = RegisterPluginRequest(plugin_name=self._name, plugin_idx=self._index, NRI_version=NRI_API)
        self._registration = self._client.send_request(
            _RUNTIME, "RegisterPlugin", request.SerializeToString(), timeout_s
        )

    def feed(self, data: bytes) -> list[PluginEvent]:
        """Returns what the runtime said; raises ProtocolError when the connection is of no more use."""
        events: list[PluginEvent] = []
        for connection, piece in self._demultiplexer.feed(data):
            if connection == PLUGIN_SERVICE:
                for request in self._server.feed(piece):
                    event = self._called(request)
                    if event is not None:
                        events.append(event)
            else:
                events.extend(
                    RegistrationRefused(response.error) if response.code else Registered()
                    for response in self._client.feed(piece)
                    if response.stream_id == self._registration
                )
        return events

    def data_to_send(self) -> bytes:
        """Returns, once, the bytes to write to the socket."""
        return frames(RUNTIME_SERVICE, self._client.chunks_to_send()) + frames(
            PLUGIN_SERVICE, self._server.chunks_to_send()
        )

    def reply(self, create: CreateContainer, adjustment: ContainerAdjustment | None) -> None:
        """Lets the container be created, with ``adjustment`` if there is one.

        An adjustment that this runtime would partly ignore is answered with an error that names the fields: to create
        the container without them would be something other than what was asked for.
        """
        if adjustment is None:
            self._server.send_response(create.stream_id, b"")
            return
        runtime = self._runtime
        if runtime is not None and (ignored := ignored_fields(adjustment, runtime.nri)):
            fields = ", ".join(ignored)
            release = f"{runtime.name} {runtime.version}"
            self.fail(create, f"NriFieldUnsupported: {release} cannot adjust {fields}; it needs a newer release")
            return
        self._server.send_response(create.stream_id, CreateContainerResponse(adjust=adjustment).SerializeToString())

    def fail(self, create: CreateContainer, error: str) -> None:
        """Makes the container's creation fail with ``error``, which ends in the CRI's error and the pod's event."""
        self._server.send_error(create.stream_id, Code.FAILED_PRECONDITION, error)

    def _called(self, request: RequestReceived) -> PluginEvent | None:
        method, stream_id = request.method, request.stream_id
        if request.service != _PLUGIN:
            self._server.send_error(stream_id, Code.UNIMPLEMENTED, f"no service {request.service}")
            return None
        try:
            if method == "CreateContainer":
                create = CreateContainerRequest.FromString(request.payload)
                return CreateContainer(stream_id, create.pod, create.container, request.timeout_s)
            if method in _EVENT_CALLS:
                event = EventRequest.FromString(request.payload)
                self._server.send_response(stream_id, b"")
                return Happened(_EVENT_CALLS[method], event.pod, event.container)
            if method == "StateChange":
                change = StateChangeEvent.FromString(request.payload)
                self._server.send_response(stream_id, b"")
                return Happened(change.event, change.pod, change.container)
            if method == "Synchronize":
                return self._synchronize(request)
            if method == "Configure":
                return self._configure(request)
        except DecodeError:
            # An error status would fail a container that may be none of ours; a silence would eject the plugin.
            log.warning("the runtime's %s does not decode; answered as if it were no concern of ours", method)
            self._server.send_response(stream_id, b"")
            return Undecodable(method)
        if method != "Shutdown":  # defined since 0.2, sent by no runtime yet; the connection's end says the same
            # NRI 0.12 falls back from an event's own call to StateChange on exactly this code.
            self._server.send_error(stream_id, Code.UNIMPLEMENTED, f"no method {method}")
            return None
        self._server.send_response(stream_id, b"")
        return None

    def _configure(self, request: RequestReceived) -> Configured:
        try:
            configure = ConfigureRequest.FromString(request.payload)
        except DecodeError:
            configure = ConfigureRequest()  # an empty answer would subscribe to everything: take it for the oldest
        nri = nri_version(configure.runtime_name, configure.runtime_version, configure.NRI_version)
        self._runtime = Runtime(
            configure.runtime_name, configure.runtime_version, nri, max(0, configure.request_timeout) / 1000
        )
        self._answer(request, ConfigureResponse(events=event_mask(self._subscribed, nri)))
        return Configured(self._runtime)

    def _synchronize(self, request: RequestReceived) -> Synchronized | None:
        """Answers one chunk, with the ``more`` it came with and no updates, or NRI ends the connection (0.7 on)."""
        try:
            chunk = SynchronizeRequest.FromString(request.payload)
        except DecodeError:
            self._complete = False
            more = _more(request.payload)
        else:
            more = chunk.more
            self._pods += chunk.pods
            self._containers += chunk.containers
        self._answer(request, SynchronizeResponse(more=more))
        if more:
            return None
        state = (self._pods, self._containers) if self._complete else None
        self._pods, self._containers, self._complete = [], [], True
        return Synchronized(state)

    def _answer(self, request: RequestReceived, message: Message) -> None:
        self._server.send_response(request.stream_id, message.SerializeToString())


def _more(payload: bytes) -> bool:
    try:
        return SynchronizeMore.FromString(payload).more
    except DecodeError:
        return False
