"""Sessions with real runtimes, byte for byte: what they sent decodes, and what we answer is what they once accepted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nri_plugin.nri.nri_pb2 import Container, ContainerState, Event, RegisterPluginRequest
from nri_plugin.nri.protocol import (
    Configured,
    CreateContainer,
    Happened,
    PluginEvent,
    PluginProtocol,
    Registered,
    Synchronized,
)
from nri_plugin.ttrpc.ttrpc_pb2 import Request
from tests.unit.nri_plugin.nri.recorded import ADJUSTMENTS, FOLDER, REFUSALS, read_recording

RECORDINGS = sorted(FOLDER.glob("*.hex"))


@pytest.fixture(params=RECORDINGS, ids=lambda path: path.stem)
def recording(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def replay(path: Path, step_bytes: int = 1 << 20) -> Iterator[PluginEvent]:
    """Feeds what the runtime sent, ``step_bytes`` at a time; asserts that each answer is the recorded one."""
    (first, registration), *lines = read_recording(path)
    assert first == ">"
    protocol = PluginProtocol("nri-restore-test", "50")
    protocol.register(10.0)
    assert protocol.data_to_send()[:18] == registration[:18]
    for direction, data in lines:
        if direction == ">":
            assert protocol.data_to_send() == data
            continue
        for start in range(0, len(data), step_bytes):
            for event in protocol.feed(data[start : start + step_bytes]):
                if isinstance(event, CreateContainer):
                    if event.container.name in REFUSALS:
                        protocol.fail(event, ": ".join(REFUSALS[event.container.name]))
                    else:
                        protocol.reply(event, ADJUSTMENTS.get(event.container.name))
                yield event
    assert protocol.data_to_send() == b""


def test_there_are_recordings_of_both_generations() -> None:
    assert {path.stem for path in RECORDINGS} >= {"containerd-1.7.24", "containerd-2.1.9"}


def test_a_real_session_is_understood_and_answered_as_it_was(recording: Path) -> None:
    events = list(replay(recording))
    assert [type(event) for event in events[:3]] == [Registered, Configured, Synchronized]
    configured, synchronized = events[1], events[2]
    assert isinstance(configured, Configured)
    assert f"{configured.runtime.name}-{configured.runtime.version}".startswith(recording.stem)
    assert configured.runtime.nri == ((0, 6, 1) if "1.7.24" in recording.stem else (0, 8, 0))
    assert configured.runtime.request_timeout_s == (0 if "1.7.24" in recording.stem else 2)
    assert isinstance(synchronized, Synchronized)
    assert synchronized.state is not None
    pods, containers = synchronized.state
    assert [(pod.name, pod.namespace) for pod in pods] == [("resident", "default")]
    assert [(each.name, each.state) for each in containers] == [("resident", ContainerState.CONTAINER_RUNNING)]
    assert containers[0].pid > 0


def test_a_real_containers_facts_are_read(recording: Path) -> None:
    creates = [event for event in replay(recording) if isinstance(event, CreateContainer)]
    assert [create.container.name for create in creates] == ["ordinary", "adjusted", "refused"]
    for create in creates:
        pod, container = create.pod, create.container
        assert 1.9 < create.timeout_s <= 2
        assert pod.name == container.labels["io.kubernetes.pod.name"] == "visitor"
        assert container.pod_sandbox_id == pod.id
        assert len(container.id) == 64
        assert list(container.args) == ["sleep", "1000"]
        assert any(variable.startswith("PATH=") for variable in container.env)
        assert {"/proc", "/dev/shm", "/etc/hosts"} <= {mount.destination for mount in container.mounts}
        assert container.annotations["io.kubernetes.cri.image-name"] == "nri-restore.test/busybox:1"
        assert {namespace.type for namespace in container.linux.namespaces} >= {"pid", "mount", "network"}
        assert container.id in container.linux.cgroups_path
        assert container.state == ContainerState.CONTAINER_UNKNOWN
        assert container.pid == 0


def test_the_end_of_a_refused_container_that_never_was_is_told_like_any_other(recording: Path) -> None:
    creates: dict[str, str] = {}
    told: list[tuple[int, str]] = []
    for event in replay(recording):
        if isinstance(event, CreateContainer):
            creates[event.container.id] = event.container.name
        elif isinstance(event, Happened):
            told.append((event.event, creates.get(event.container.id, event.pod.name)))
            assert event.container == Container() or event.container.name == told[-1][1]
    # The runtime's undo of the failed creation comes at once; the pod is stopped before its containers are removed.
    assert told[:2] == [(Event.STOP_CONTAINER, "refused"), (Event.REMOVE_CONTAINER, "refused")]
    pod_stops = told.index((Event.STOP_POD_SANDBOX, "visitor"))
    for name in ("ordinary", "adjusted"):
        assert told.index((Event.STOP_CONTAINER, name)) < pod_stops < told.index((Event.REMOVE_CONTAINER, name))


@pytest.mark.parametrize("step_bytes", [1, 7, 4095, 4096])
def test_how_the_bytes_are_cut_changes_nothing(recording: Path, step_bytes: int) -> None:
    assert list(replay(recording, step_bytes)) == list(replay(recording))


def test_the_recorded_registration_was_ours(recording: Path) -> None:
    _, data = read_recording(recording)[0]
    register = RegisterPluginRequest.FromString(Request.FromString(data[26:]).payload)
    assert (register.plugin_name, register.plugin_idx) == ("nri-restore-test", "50")
