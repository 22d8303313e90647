"""The plugin's side of NRI without a socket: bytes of a runtime in, events and answers out."""

from __future__ import annotations

import contextlib

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from nri_plugin.nri.nri_pb2 import (
    ConfigureRequest,
    ConfigureResponse,
    Container,
    ContainerAdjustment,
    ContainerState,
    CreateContainerRequest,
    CreateContainerResponse,
    Event,
    EventRequest,
    PodSandbox,
    RegisterPluginRequest,
    StateChangeEvent,
    SynchronizeRequest,
    SynchronizeResponse,
)
from nri_plugin.nri.protocol import (
    Configured,
    CreateContainer,
    Happened,
    PluginProtocol,
    Registered,
    RegistrationRefused,
    Synchronized,
    Undecodable,
)
from nri_plugin.nri.versions import Runtime
from nri_plugin.ttrpc.errors import ProtocolError
from nri_plugin.ttrpc.protocol import Code
from nri_plugin.ttrpc.ttrpc_pb2 import Request, Response, Status
from tests.unit.nri_plugin.nri.fake_runtime import MUX, TTRPC, go_frames, request_bytes

POD = PodSandbox(id="p1", name="web", namespace="default")
CONTAINER = Container(id="c1", pod_sandbox_id="p1", name="main")
NOT_UTF8 = b"\x0a\x04\x0a\x02\xff\xfe"  # field 1 (pod) whose field 1 (id) is no UTF-8


def sent(protocol: PluginProtocol) -> list[tuple[int, int, int, bytes]]:
    """What the protocol wants sent, as (connection, ttrpc type, stream id, payload)."""
    data = protocol.data_to_send()
    streams: dict[int, bytes] = {}
    while data:
        connection, length = MUX.unpack_from(data)
        streams[connection] = streams.get(connection, b"") + data[8 : 8 + length]
        data = data[8 + length :]
    messages = []
    for connection, stream in streams.items():
        while stream:
            length, stream_id, kind, _ = TTRPC.unpack_from(stream)
            messages.append((connection, kind, stream_id, stream[10 : 10 + length]))
            stream = stream[10 + length :]
    return messages


def plugin() -> PluginProtocol:
    return PluginProtocol("restore", "50")


def called(protocol: PluginProtocol, stream_id: int, method: str, message: Message | bytes) -> list[object]:
    payload = message if isinstance(message, bytes) else message.SerializeToString()
    return list(protocol.feed(go_frames(1, request_bytes(stream_id, method, payload))))


def only_answer(protocol: PluginProtocol) -> Response:
    ((connection, kind, _, payload),) = sent(protocol)
    assert (connection, kind) == (1, 2)
    return Response.FromString(payload)


def configured(version: str = "v2.2.0", name: str = "containerd") -> PluginProtocol:
    protocol = plugin()
    called(protocol, 1, "Configure", ConfigureRequest(runtime_name=name, runtime_version=version))
    protocol.data_to_send()
    return protocol


@pytest.mark.parametrize("name", ["", "with space", "slash/", "ünï"])
def test_a_name_that_nri_would_refuse_is_refused_before_connecting(name: str) -> None:
    with pytest.raises(ValueError, match="plugin name"):
        PluginProtocol(name, "50")


@pytest.mark.parametrize("index", ["", "5", "500", "5a", "\u0665\u0660"])
def test_an_index_is_two_digits(index: str) -> None:
    with pytest.raises(ValueError, match="plugin index"):
        PluginProtocol("restore", index)


def test_registration_is_sent_on_the_runtimes_connection() -> None:
    protocol = plugin()
    protocol.register(10.0)
    ((connection, kind, stream_id, payload),) = sent(protocol)
    assert (connection, kind, stream_id) == (2, 1, 1)
    request = Request.FromString(payload)
    assert (request.service, request.method) == ("nri.pkg.api.v1alpha1.Runtime", "RegisterPlugin")
    assert request.timeout_nano == 10_000_000_000
    register = RegisterPluginRequest.FromString(request.payload)
    assert (register.plugin_name, register.plugin_idx) == ("restore", "50")


def test_configure_may_come_before_the_answer_to_the_registration() -> None:
    protocol = plugin()
    protocol.register(10.0)
    protocol.data_to_send()
    (first,) = called(protocol, 1, "Configure", ConfigureRequest(runtime_name="containerd", runtime_version="v2.0.0"))
    assert isinstance(first, Configured)
    (second,) = protocol.feed(go_frames(2, TTRPC.pack(0, 1, 2, 0)))
    assert second == Registered()


def test_a_refused_registration_says_why() -> None:
    protocol = plugin()
    protocol.register(10.0)
    refusal = Response(status=Status(code=2, message=b"invalid plugin index")).SerializeToString()
    (event,) = protocol.feed(go_frames(2, TTRPC.pack(len(refusal), 1, 2, 0) + refusal))
    assert event == RegistrationRefused("invalid plugin index")


def test_configure_tells_the_runtime_and_is_answered_with_the_subscription() -> None:
    protocol = plugin()
    request = ConfigureRequest(
        runtime_name="containerd", runtime_version="v2.2.0", registration_timeout=5000, request_timeout=2500
    )
    (event,) = called(protocol, 1, "Configure", request)
    assert event == Configured(Runtime("containerd", "v2.2.0", (0, 10, 0), 2.5))
    events = ConfigureResponse.FromString(only_answer(protocol).payload).events
    assert events == 1 << 1 | 1 << 3 | 1 << 9 | 1 << 10


def test_a_configure_that_does_not_decode_still_never_subscribes_to_everything() -> None:
    protocol = plugin()
    (event,) = called(protocol, 1, "Configure", b"\x0a\x02\xff\xfe")
    assert event == Configured(Runtime("", "", (0, 2, 0)))
    assert ConfigureResponse.FromString(only_answer(protocol).payload).events == 1 << 1 | 1 << 3 | 1 << 9 | 1 << 10


def test_a_synchronize_in_chunks_is_answered_chunk_by_chunk_and_delivered_once() -> None:
    protocol = plugin()
    pods = [PodSandbox(id=f"p{n}") for n in range(3)]
    containers = [Container(id=f"c{n}") for n in range(3)]
    for n, more in enumerate([True, True, False]):
        chunk = SynchronizeRequest(pods=[pods[n]], containers=[containers[n]], more=more)
        events = called(protocol, 1 + 2 * n, "Synchronize", chunk)
        answer = only_answer(protocol)
        assert answer.status.code == 0
        assert SynchronizeResponse.FromString(answer.payload) == SynchronizeResponse(more=more)
        assert events == ([] if more else [Synchronized((pods, containers))])


def test_a_second_synchronize_starts_over() -> None:
    protocol = plugin()
    called(protocol, 1, "Synchronize", SynchronizeRequest(pods=[POD]))
    assert called(protocol, 3, "Synchronize", SynchronizeRequest()) == [Synchronized(([], []))]


def test_a_chunk_that_does_not_decode_is_answered_with_its_more_and_the_list_is_not_delivered() -> None:
    protocol = plugin()
    assert called(protocol, 1, "Synchronize", SynchronizeRequest(pods=[POD], more=True)) == []
    only_answer(protocol)
    assert called(protocol, 3, "Synchronize", NOT_UTF8 + b"\x18\x01") == []
    assert SynchronizeResponse.FromString(only_answer(protocol).payload).more is True
    assert called(protocol, 5, "Synchronize", SynchronizeRequest(pods=[POD])) == [Synchronized(None)]


def test_a_synchronize_that_is_no_message_at_all_ends_the_list() -> None:
    assert called(plugin(), 1, "Synchronize", b"\xff\xff\xff") == [Synchronized(None)]


def test_an_empty_reply_creates_the_container_as_it_is() -> None:
    protocol = configured()
    (create,) = called(protocol, 3, "CreateContainer", CreateContainerRequest(pod=POD, container=CONTAINER))
    assert create == CreateContainer(3, POD, CONTAINER, 2.0)
    assert sent(protocol) == []
    protocol.reply(create, None)
    assert only_answer(protocol) == Response()


def test_an_adjustment_is_sent() -> None:
    protocol = configured()
    (create,) = called(protocol, 3, "CreateContainer", CreateContainerRequest(pod=POD, container=CONTAINER))
    assert isinstance(create, CreateContainer)
    adjustment = ContainerAdjustment(annotations={"nri-restore/plan": "x"})
    protocol.reply(create, adjustment)
    assert CreateContainerResponse.FromString(only_answer(protocol).payload).adjust == adjustment


def test_an_adjustment_the_runtime_would_partly_ignore_fails_the_creation_and_names_the_fields() -> None:
    protocol = configured("1.7.24~ds1")
    (create,) = called(protocol, 3, "CreateContainer", CreateContainerRequest(pod=POD, container=CONTAINER))
    assert isinstance(create, CreateContainer)
    protocol.reply(create, ContainerAdjustment(args=["", "sh"]))
    status = only_answer(protocol).status
    assert status.code == Code.FAILED_PRECONDITION
    assert status.message == b"NriFieldUnsupported: containerd 1.7.24~ds1 cannot adjust args; it needs a newer release"


def test_a_failure_is_failed_precondition_with_the_sentence() -> None:
    protocol = configured()
    (create,) = called(protocol, 3, "CreateContainer", CreateContainerRequest(pod=POD, container=CONTAINER))
    assert isinstance(create, CreateContainer)
    protocol.fail(create, "MountMissing: no /cache")
    status = only_answer(protocol).status
    assert (status.code, status.message) == (9, b"MountMissing: no /cache")


@pytest.mark.parametrize(
    ("method", "event"),
    [
        ("StopContainer", Event.STOP_CONTAINER),
        ("RemoveContainer", Event.REMOVE_CONTAINER),
        ("StopPodSandbox", Event.STOP_POD_SANDBOX),
        ("RemovePodSandbox", Event.REMOVE_POD_SANDBOX),
    ],
)
def test_events_come_by_their_own_call_or_by_state_change_and_are_answered_at_once(method: str, event: Event) -> None:
    protocol = configured()
    container = CONTAINER if "Container" in method else Container()
    own = EventRequest(pod=POD, container=container if container.id else None)
    assert called(protocol, 3, method, own) == [Happened(event, POD, container)]
    assert only_answer(protocol) == Response()
    change = StateChangeEvent(event=event, pod=POD, container=container if container.id else None)
    assert called(protocol, 5, "StateChange", change) == [Happened(event, POD, container)]
    assert only_answer(protocol) == Response()


def test_an_event_of_a_newer_nri_does_not_raise() -> None:
    protocol = configured()
    change = StateChangeEvent(event=99, pod=POD)  # type: ignore[arg-type]
    assert called(protocol, 3, "StateChange", change) == [Happened(99, POD, Container())]
    assert only_answer(protocol) == Response()


def test_a_container_state_of_a_newer_nri_does_not_raise() -> None:
    container = Container(id="c1", state=42)  # type: ignore[arg-type]
    (create,) = called(configured(), 3, "CreateContainer", CreateContainerRequest(pod=POD, container=container))
    assert isinstance(create, CreateContainer)
    assert create.container.state == 42
    assert create.container.state not in ContainerState.values()


@pytest.mark.parametrize(
    "method", ["PostCreateContainer", "UpdatePodSandbox", "ValidateContainerAdjustment", "FromTheFuture", ""]
)
def test_an_unknown_method_is_unimplemented_so_that_nri_falls_back_to_state_change(method: str) -> None:
    protocol = configured()
    assert called(protocol, 3, method, b"") == []
    assert only_answer(protocol).status.code == Code.UNIMPLEMENTED


def test_an_unknown_service_is_unimplemented() -> None:
    protocol = configured()
    assert protocol.feed(go_frames(1, request_bytes(3, "CreateContainer", b"", service="grpc.health.v1.Health"))) == []
    assert only_answer(protocol).status.code == Code.UNIMPLEMENTED


def test_shutdown_is_answered_and_nothing_more() -> None:
    protocol = configured()
    assert called(protocol, 3, "Shutdown", b"") == []
    assert only_answer(protocol) == Response()


@pytest.mark.parametrize("method", ["CreateContainer", "StopContainer", "RemoveContainer", "StopPodSandbox"])
@pytest.mark.parametrize("payload", [NOT_UTF8, b"\xff\xff\xff", b"\x0a\x7f"])
def test_an_event_that_does_not_decode_is_answered_as_if_it_were_no_concern_of_ours(
    method: str, payload: bytes
) -> None:
    protocol = configured()
    assert called(protocol, 3, method, payload) == [Undecodable(method)]
    assert only_answer(protocol) == Response()
    assert len(called(protocol, 5, "CreateContainer", CreateContainerRequest(pod=POD, container=CONTAINER))) == 1


@given(st.lists(st.binary(max_size=64), max_size=6))
def test_garbage_gives_events_or_a_protocol_error(received: list[bytes]) -> None:
    protocol = plugin()
    protocol.register(1)
    with contextlib.suppress(ProtocolError):
        for data in received:
            protocol.feed(data)


@given(
    st.sampled_from(["Configure", "Synchronize", "CreateContainer", "StopContainer", "StateChange", "Shutdown", "x"]),
    st.binary(max_size=64),
)
def test_any_payload_of_any_method_is_answered_or_waits_to_be(method: str, payload: bytes) -> None:
    protocol = plugin()
    events = called(protocol, 1, method, payload)
    for event in events:
        if isinstance(event, CreateContainer):
            protocol.reply(event, None)
    ((connection, kind, stream_id, _),) = sent(protocol)
    assert (connection, kind, stream_id) == (1, 2, 1)
