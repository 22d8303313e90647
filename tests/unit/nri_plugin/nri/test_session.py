"""The session against a runtime that frames, reads and times as Go does, over a real unix socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nri_plugin.nri.nri_pb2 import (
    ConfigureRequest,
    Container,
    ContainerAdjustment,
    CreateContainerRequest,
    CreateContainerResponse,
    Event,
    EventRequest,
    PodSandbox,
    StateChangeEvent,
    SynchronizeRequest,
)
from nri_plugin.nri.session import Session
from nri_plugin.ttrpc.ttrpc_pb2 import Response
from shared.errors import Refused, RestoreError
from tests.unit.nri_plugin.nri.fake_runtime import (
    CONTAINERD_17,
    MUX,
    PATIENCE_S,
    FakeRuntime,
    GoReader,
    GoWouldClose,
    Plugin,
    handshake,
)

POD = PodSandbox(id="p1", name="web", namespace="default")
OURS = Container(id="ours", name="main")
ORDINARY = Container(id="ordinary", name="main")


async def no_adjustment(pod: PodSandbox, container: Container) -> ContainerAdjustment | None:
    return None


@dataclass
class Recorder:
    """A handler that writes down what it hears; owns containers whose id starts with ``ours``."""

    create: Callable[[PodSandbox, Container], Awaitable[ContainerAdjustment | None]] = no_adjustment
    heard: list[str] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    stop_takes_s: float = 0.0

    def owns(self, pod: PodSandbox, container: Container) -> bool:
        if container.id == "owns raises":
            raise RuntimeError("owns is broken")
        return container.id.startswith("ours")

    async def create_container(
        self, pod: PodSandbox, container: Container, limit_s: float
    ) -> ContainerAdjustment | None:
        self.limits.append(limit_s)
        self.heard.append(f"create {container.id}")
        return await self.create(pod, container)

    async def synchronize(self, pods: Sequence[PodSandbox], containers: Sequence[Container]) -> None:
        self.heard.append(f"synchronize {len(pods)} {len(containers)}")

    async def stop_container(self, pod: PodSandbox, container: Container) -> None:
        await asyncio.sleep(self.stop_takes_s)
        self.heard.append(f"stop {container.id}")

    async def remove_container(self, pod: PodSandbox, container: Container) -> None:
        if container.id == "remove raises":
            raise RuntimeError("remove is broken")
        self.heard.append(f"remove {container.id}")

    async def stop_pod_sandbox(self, pod: PodSandbox) -> None:
        self.heard.append(f"stop pod {pod.id}")

    async def remove_pod_sandbox(self, pod: PodSandbox) -> None:
        self.heard.append(f"remove pod {pod.id}")


@contextlib.asynccontextmanager
async def connected(
    path: Path, handler: Recorder, configure: ConfigureRequest = CONTAINERD_17
) -> AsyncIterator[tuple[Session, Plugin]]:
    """A session that a fake runtime has registered, configured and synchronized; both end afterwards."""
    ready = asyncio.Event()
    session = Session(path, "restore", "50", handler)
    async with FakeRuntime(path, lambda plugin: handshake(plugin, configure)) as runtime:
        running = asyncio.create_task(session.run_once(lambda _: ready.set()))
        try:
            async with asyncio.timeout(PATIENCE_S):
                await ready.wait()
            await asyncio.sleep(0)
            yield session, runtime.plugins[0]
        finally:
            await session.close(grace_s=1)
            async with asyncio.timeout(PATIENCE_S):
                await running
        assert runtime.errors == []


async def create(plugin: Plugin, container: Container = OURS, timeout_s: float = 2.0) -> Response:
    return await plugin.call(
        "CreateContainer", CreateContainerRequest(pod=POD, container=container), timeout_s=timeout_s
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


@contextlib.contextmanager
def tasks_created() -> Iterator[list[str]]:
    """The coroutines of the tasks that are created inside."""
    loop = asyncio.get_running_loop()
    created: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        created.append(work.__qualname__)
        return asyncio.Task(work, loop=loop, **options)

    loop.set_task_factory(factory)
    try:
        yield created
    finally:
        loop.set_task_factory(None)


def adjusting(size_bytes: int) -> Callable[[PodSandbox, Container], Awaitable[ContainerAdjustment | None]]:
    async def adjust(pod: PodSandbox, container: Container) -> ContainerAdjustment | None:
        return ContainerAdjustment(annotations={"k": "x" * size_bytes})

    return adjust


def raising(error: BaseException) -> Callable[[PodSandbox, Container], Awaitable[ContainerAdjustment | None]]:
    async def fail(pod: PodSandbox, container: Container) -> ContainerAdjustment | None:
        raise error

    return fail


def waiting(seconds: float) -> Callable[[PodSandbox, Container], Awaitable[ContainerAdjustment | None]]:
    async def wait(pod: PodSandbox, container: Container) -> ContainerAdjustment | None:
        await asyncio.sleep(seconds)
        return ContainerAdjustment(annotations={"k": "decided"})

    return wait


def test_a_session_registers_says_what_runtime_it_has_and_synchronizes(socket_path: Path) -> None:
    async def run() -> None:
        handler = Recorder()
        async with connected(socket_path, handler) as (session, plugin):
            assert plugin.registration is not None
            assert (plugin.registration.plugin_name, plugin.registration.plugin_idx) == ("restore", "50")
            assert plugin.events == 0b11000001010
            assert session.ready
            assert session.runtime is not None
            assert (session.runtime.version, session.runtime.nri) == ("1.7.24~ds1", (0, 6, 1))
            await until(lambda: handler.heard == ["synchronize 0 0"])
        assert not session.ready
        assert session.runtime is None

    asyncio.run(run())


def test_a_runtime_that_configures_before_it_answers_the_registration(socket_path: Path) -> None:
    async def serve(plugin: Plugin) -> None:
        stream_id, _ = await plugin.read_registration()
        await plugin.configure(CONTAINERD_17)
        await plugin.synchronize(SynchronizeRequest())
        plugin.answer_registration(stream_id)

    async def run() -> None:
        handler = Recorder()
        async with FakeRuntime(socket_path, serve):
            session = Session(socket_path, "restore", "50", handler)
            running = asyncio.create_task(session.run_once())
            await until(lambda: session.ready and session.counts["connects"] == 1)
            await session.close()
            await running

    asyncio.run(run())


@pytest.mark.parametrize("size_bytes", [0, 1, 4000, 4060, 4080, 4086, 4087, 4096, 4106, 5000, 65536, 4_000_000])
def test_an_adjustment_of_any_size_reaches_a_reader_with_gos_buffer(socket_path: Path, size_bytes: int) -> None:
    async def run() -> None:
        async with connected(socket_path, Recorder(adjusting(size_bytes))) as (_, plugin):
            response = await create(plugin)
            adjust = CreateContainerResponse.FromString(response.payload).adjust
            assert len(adjust.annotations["k"]) == size_bytes

    asyncio.run(run())


def test_gos_reader_does_refuse_a_message_of_5000_bytes_in_one_frame() -> None:
    """The trap itself, so that the test above is known to be able to fail."""

    async def run() -> None:
        reader = GoReader()
        reader.frames.put_nowait(b"h" * 10 + b"x" * 4990)
        with pytest.raises(GoWouldClose):
            await reader.read_full(10)

    asyncio.run(run())


def test_an_adjustment_over_4_mib_fails_the_creation_and_the_session_goes_on(socket_path: Path) -> None:
    async def run() -> None:
        async with connected(socket_path, Recorder(adjusting(4 << 20))) as (_, plugin):
            assert (await create(plugin)).status.code == 8
            assert (await create(plugin, ORDINARY)).status.code == 0

    asyncio.run(run())


def test_a_request_of_nearly_4_mib_arrives_however_it_is_cut(socket_path: Path) -> None:
    async def run() -> None:
        seen: list[int] = []

        async def measure(pod: PodSandbox, container: Container) -> ContainerAdjustment | None:
            seen.append(len(container.env[0]))
            return None

        async with connected(socket_path, Recorder(measure)) as (_, plugin):
            await create(plugin, Container(id="ours", env=["A=" + "x" * 4_000_000]))
        assert seen == [4_000_002]

    asyncio.run(run())


def test_an_ordinary_container_is_answered_without_a_task(socket_path: Path) -> None:
    async def run() -> None:
        handler = Recorder()
        async with connected(socket_path, handler) as (session, plugin):
            await until(lambda: len(handler.heard) == 1)
            with tasks_created() as created:
                assert await create(plugin, ORDINARY) == Response()
            assert created == []
            with tasks_created() as created:
                assert await create(plugin, OURS) == Response()
            assert created == ["OrderedTasks._run"]
            handler.heard.remove("create ours")
            assert handler.heard == ["synchronize 0 0"]
            assert session.counts["ordinary"] == 1

    asyncio.run(run())


def test_a_container_is_ordinary_when_owns_raises(socket_path: Path) -> None:
    async def run() -> None:
        async with connected(socket_path, Recorder()) as (session, plugin):
            assert await create(plugin, Container(id="owns raises")) == Response()
            assert session.counts["handler_errors"] == 1

    asyncio.run(run())


def test_a_refusal_is_failed_precondition_with_reason_and_sentence(socket_path: Path) -> None:
    async def run() -> None:
        handler = Recorder(raising(Refused("MountMissing", "checkpoint needs /ca\udcffche;\nadd it")))
        async with connected(socket_path, handler) as (session, plugin):
            status = (await create(plugin)).status
            assert (status.code, status.message) == (9, rb"MountMissing: checkpoint needs /ca\udcffche;\nadd it")
            assert session.counts["failed"] == 1

    asyncio.run(run())


def test_any_other_exception_creates_the_container_as_it_is(socket_path: Path) -> None:
    async def run() -> None:
        async with connected(socket_path, Recorder(raising(KeyError("bug")))) as (session, plugin):
            assert await create(plugin) == Response()
            assert session.counts["handler_errors"] == 1
            assert (await create(plugin, ORDINARY)).status.code == 0

    asyncio.run(run())


def test_a_cancelled_decision_fails_the_creation(socket_path: Path) -> None:
    async def run() -> None:
        async with connected(socket_path, Recorder(raising(asyncio.CancelledError()))) as (_, plugin):
            status = (await create(plugin)).status
            assert status.code == 9
            assert status.message.startswith(b"NriInterrupted: ")

    asyncio.run(run())


def test_a_decision_that_takes_too_long_fails_the_creation_300_ms_before_the_runtime_gives_up(
    socket_path: Path,
) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        cancelled = asyncio.Event()

        async def decide(pod: PodSandbox, container: Container) -> ContainerAdjustment | None:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return None

        recorder = Recorder(decide)
        async with connected(socket_path, recorder) as (session, plugin):
            started = loop.time()
            status = (await create(plugin, timeout_s=0.8)).status
            assert recorder.limits == [pytest.approx(0.5)]
            assert loop.time() - started > 0.45
            assert status.code == 9
            assert status.message.startswith(b"AnswerLate: ")
            assert session.counts["late"] == 1
            async with asyncio.timeout(PATIENCE_S):
                await cancelled.wait()
            assert (await create(plugin, ORDINARY)).status.code == 0

    asyncio.run(run())


def test_the_runtimes_own_limit_holds_when_the_call_names_a_longer_one(socket_path: Path) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        configure = ConfigureRequest(runtime_name="containerd", runtime_version="v2.1.0", request_timeout=500)
        async with connected(socket_path, Recorder(waiting(90)), configure) as (_, plugin):
            started = loop.time()
            assert (await create(plugin, timeout_s=60)).status.code == 9
            assert loop.time() - started < 30

    asyncio.run(run())


def test_other_events_are_answered_while_a_decision_is_being_made(socket_path: Path) -> None:
    async def run() -> None:
        go_on = asyncio.Event()

        async def decide(pod: PodSandbox, container: Container) -> ContainerAdjustment:
            await go_on.wait()
            return ContainerAdjustment(annotations={"k": "decided"})

        async with connected(socket_path, Recorder(decide)) as (_, plugin):
            deciding = asyncio.create_task(create(plugin))
            await asyncio.sleep(0)
            assert await create(plugin, ORDINARY) == Response()
            assert not deciding.done()
            go_on.set()
            assert CreateContainerResponse.FromString((await deciding).payload).adjust.annotations["k"] == "decided"

    asyncio.run(run())


def test_stop_and_remove_are_answered_before_they_are_worked_on_and_kept_in_order_for_each_container(
    socket_path: Path,
) -> None:
    async def run() -> None:
        handler = Recorder(stop_takes_s=0.1)
        async with connected(socket_path, handler) as (_, plugin):
            # A StopContainer without a create, as the runtime's undo of a failed one or after a restart of ours.
            assert await plugin.call("StopContainer", EventRequest(pod=POD, container=Container(id="a"))) == Response()
            change = StateChangeEvent(event=Event.REMOVE_CONTAINER, pod=POD, container=Container(id="a"))
            assert await plugin.call("StateChange", change) == Response()
            assert (
                await plugin.call("RemoveContainer", EventRequest(pod=POD, container=Container(id="b"))) == Response()
            )
            await plugin.call("StateChange", StateChangeEvent(event=Event.STOP_POD_SANDBOX, pod=POD))
            assert "stop a" not in handler.heard
            await until(lambda: len(handler.heard) == 5)
            assert handler.heard == ["synchronize 0 0", "remove b", "stop pod p1", "stop a", "remove a"]

    asyncio.run(run())


def test_a_handler_that_fails_is_counted_and_the_next_event_of_the_same_container_is_heard(socket_path: Path) -> None:
    async def run() -> None:
        handler = Recorder()
        async with connected(socket_path, handler) as (session, plugin):
            broken = EventRequest(pod=POD, container=Container(id="remove raises"))
            assert await plugin.call("RemoveContainer", broken) == Response()
            assert await plugin.call("StopContainer", broken) == Response()
            await until(lambda: "stop remove raises" in handler.heard)
            assert session.counts["handler_errors"] == 1

    asyncio.run(run())


def test_events_nobody_subscribed_to_are_answered_and_dropped(socket_path: Path) -> None:
    async def run() -> None:
        handler = Recorder()
        async with connected(socket_path, handler) as (_, plugin):
            for event in (Event.RUN_POD_SANDBOX, Event.POST_START_CONTAINER, 99):
                change = StateChangeEvent(event=event, pod=POD, container=OURS)  # type: ignore[arg-type]
                assert await plugin.call("StateChange", change) == Response()
        assert handler.heard == ["synchronize 0 0"]

    asyncio.run(run())


def test_an_undecodable_event_is_counted_and_survived(socket_path: Path) -> None:
    async def run() -> None:
        async with connected(socket_path, Recorder()) as (session, plugin):
            assert await plugin.call("CreateContainer", b"\x0a\x04\x0a\x02\xff\xfe") == Response()
            assert session.counts["undecodable"] == 1
            assert (await create(plugin)).status.code == 0

    asyncio.run(run())


def test_a_list_that_does_not_decode_is_not_passed_on_as_if_it_were_whole(socket_path: Path) -> None:
    async def serve(plugin: Plugin) -> None:
        stream_id, _ = await plugin.read_registration()
        plugin.answer_registration(stream_id)
        await plugin.configure(CONTAINERD_17)
        await plugin.call("Synchronize", b"\x0a\x04\x0a\x02\xff\xfe")

    async def run() -> None:
        handler = Recorder()
        async with FakeRuntime(socket_path, serve):
            session = Session(socket_path, "restore", "50", handler)
            running = asyncio.create_task(session.run_once())
            await until(lambda: session.ready)
            await session.close()
            await running
        assert handler.heard == []
        assert session.counts["undecodable"] == 1

    asyncio.run(run())


def test_a_list_in_chunks_is_heard_once_and_whole(socket_path: Path) -> None:
    async def serve(plugin: Plugin) -> None:
        chunks = [
            SynchronizeRequest(pods=[PodSandbox(id=f"p{n}")], containers=[OURS, ORDINARY], more=n < 2) for n in range(3)
        ]
        await handshake(plugin, CONTAINERD_17, *chunks)

    async def run() -> None:
        handler = Recorder()
        async with FakeRuntime(socket_path, serve) as runtime:
            session = Session(socket_path, "restore", "50", handler)
            running = asyncio.create_task(session.run_once())
            await until(lambda: bool(handler.heard))
            await session.close()
            await running
            assert runtime.errors == []
        assert handler.heard == ["synchronize 3 6"]

    asyncio.run(run())


def test_synchronize_is_begun_before_any_later_event_of_the_same_read(socket_path: Path) -> None:
    async def serve(plugin: Plugin) -> None:
        stream_id, _ = await plugin.read_registration()
        plugin.answer_registration(stream_id)
        await plugin.configure(CONTAINERD_17)
        await asyncio.gather(plugin.call("Synchronize", SynchronizeRequest()), create(plugin))

    async def run() -> None:
        handler = Recorder()
        async with FakeRuntime(socket_path, serve):
            session = Session(socket_path, "restore", "50", handler)
            running = asyncio.create_task(session.run_once())
            await until(lambda: len(handler.heard) == 2)
            await session.close()
            await running
        assert handler.heard == ["synchronize 0 0", "create ours"]

    asyncio.run(run())


async def failure(session: Session) -> RestoreError:
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(RestoreError) as raised:
            await session.run_once()
    return raised.value


def test_nobody_listening_is_unreachable(socket_path: Path) -> None:
    error = asyncio.run(failure(Session(socket_path, "restore", "50", Recorder())))
    assert error.reason == "NriUnreachable"
    assert str(socket_path) in error.sentence


def test_a_refused_registration_is_told(socket_path: Path) -> None:
    async def serve(plugin: Plugin) -> None:
        stream_id, _ = await plugin.read_registration()
        plugin.answer_registration(stream_id, 2, b"invalid plugin index")

    async def run() -> RestoreError:
        async with FakeRuntime(socket_path, serve):
            return await failure(Session(socket_path, "restore", "50", Recorder()))

    error = asyncio.run(run())
    assert (error.reason, error.sentence) == (
        "NriRefused",
        "the runtime refused to register the plugin: invalid plugin index",
    )


def test_a_runtime_that_never_answers_is_given_up(socket_path: Path) -> None:
    async def serve(plugin: Plugin) -> None:
        await plugin.read_registration()

    async def run() -> RestoreError:
        async with FakeRuntime(socket_path, serve):
            return await failure(Session(socket_path, "restore", "50", Recorder(), register_timeout_s=0.1))

    assert asyncio.run(run()).reason == "NriTimeout"


@pytest.mark.parametrize("after", ["connect", "registration", "configure"])
def test_a_connection_that_ends_before_it_is_synchronized_is_lost(socket_path: Path, after: str) -> None:
    async def serve(plugin: Plugin) -> None:
        if after != "connect":
            stream_id, _ = await plugin.read_registration()
            plugin.answer_registration(stream_id)
        if after == "configure":
            await plugin.configure(CONTAINERD_17)
        plugin.writer.close()

    async def run() -> RestoreError:
        async with FakeRuntime(socket_path, serve):
            return await failure(Session(socket_path, "restore", "50", Recorder()))

    assert asyncio.run(run()).reason == "NriLost"


@pytest.mark.parametrize("during", ["registration", "service"])
def test_what_is_not_nri_ends_the_connection_with_a_protocol_error(socket_path: Path, during: str) -> None:
    async def serve(plugin: Plugin) -> None:
        if during == "service":
            await handshake(plugin)
        plugin.writer.write(MUX.pack(1, 0xFFFFFFFF))

    async def run() -> RestoreError:
        async with FakeRuntime(socket_path, serve):
            return await failure(Session(socket_path, "restore", "50", Recorder()))

    assert asyncio.run(run()).reason == "NriProtocol"


def test_being_thrown_out_ends_run_once_and_what_was_being_decided_is_finished(socket_path: Path) -> None:
    async def run() -> None:
        decided = asyncio.Event()

        async def decide(pod: PodSandbox, container: Container) -> ContainerAdjustment | None:
            await asyncio.sleep(0.1)
            decided.set()
            return None

        async def serve(plugin: Plugin) -> None:
            await handshake(plugin)
            calling = asyncio.create_task(create(plugin))
            await until(lambda: session.counts["owned"] == 1)
            calling.cancel()
            plugin.writer.close()

        session = Session(socket_path, "restore", "50", Recorder(decide))
        async with FakeRuntime(socket_path, serve):
            async with asyncio.timeout(PATIENCE_S):
                await session.run_once()
                assert not session.ready
                assert session.counts["owned"] == 1
                assert not decided.is_set()
                await decided.wait()
            await session.close()

    asyncio.run(run())


def test_close_answers_what_is_being_decided_and_then_ends_the_connection(socket_path: Path) -> None:
    async def run() -> None:
        async with connected(socket_path, Recorder(waiting(0.2))) as (session, plugin):
            deciding = asyncio.create_task(create(plugin))
            await until(lambda: session.counts["owned"] == 1)
            closing = asyncio.create_task(session.close())
            await asyncio.sleep(0)
            assert await create(plugin, ORDINARY) == Response()
            refused = await create(plugin, Container(id="ours too"))
            assert refused.status.message.startswith(b"NriStopping: ")
            answer = await deciding
            assert CreateContainerResponse.FromString(answer.payload).adjust.annotations["k"] == "decided"
            await closing
            await plugin.ended.wait()

    asyncio.run(run())


def test_close_fails_what_is_not_decided_within_its_grace(socket_path: Path) -> None:
    async def run() -> None:
        async with connected(socket_path, Recorder(waiting(30))) as (session, plugin):
            deciding = asyncio.create_task(create(plugin))
            await until(lambda: session.counts["owned"] == 1)
            await session.close(grace_s=0.05)
            assert (await deciding).status.message.startswith(b"NriStopping: ")

    asyncio.run(run())


def test_close_lets_handlers_finish_within_its_grace_and_cancels_them_after(socket_path: Path) -> None:
    async def run(stop_takes_s: float) -> list[str]:
        handler = Recorder(stop_takes_s=stop_takes_s)
        async with connected(socket_path, handler) as (session, plugin):
            await plugin.call("StopContainer", EventRequest(pod=POD, container=OURS))
            await session.close(grace_s=0.3)
        return handler.heard

    assert "stop ours" in asyncio.run(run(0.1))
    assert "stop ours" not in asyncio.run(run(30))


def test_close_during_the_registration_ends_it_without_an_error(socket_path: Path) -> None:
    async def serve(plugin: Plugin) -> None:
        await plugin.read_registration()

    async def run() -> None:
        async with FakeRuntime(socket_path, serve) as runtime:
            session = Session(socket_path, "restore", "50", Recorder())
            running = asyncio.create_task(session.run_once())
            await until(lambda: bool(runtime.plugins) and runtime.plugins[0].registration is not None)
            await session.close()
            async with asyncio.timeout(PATIENCE_S):
                await running

    asyncio.run(run())


def test_close_before_the_socket_is_connected_registers_nothing(socket_path: Path) -> None:
    async def run() -> None:
        async with FakeRuntime(socket_path, handshake):
            session = Session(socket_path, "restore", "50", Recorder())
            running = asyncio.create_task(session.run_once())
            await asyncio.sleep(0)
            await session.close()
            async with asyncio.timeout(PATIENCE_S):
                await running
            assert session.counts["connects"] == 0

    asyncio.run(run())


def test_removed_pods_are_heard_by_those_who_subscribe(socket_path: Path) -> None:
    async def run() -> None:
        handler = Recorder()
        async with FakeRuntime(socket_path, handshake) as runtime:
            session = Session(socket_path, "restore", "50", handler, subscribed=[Event.REMOVE_POD_SANDBOX])
            running = asyncio.create_task(session.run_once())
            await until(lambda: session.ready)
            (plugin,) = runtime.plugins
            assert plugin.events == 1 << 2
            await plugin.call("StateChange", StateChangeEvent(event=Event.REMOVE_POD_SANDBOX, pod=POD))
            await until(lambda: handler.heard == ["synchronize 0 0", "remove pod p1"])
            await session.close()
            await running

    asyncio.run(run())


def test_a_closed_session_does_not_connect_again(socket_path: Path) -> None:
    async def run() -> None:
        session = Session(socket_path, "restore", "50", Recorder())
        await session.close()
        await session.run_once()
        assert session.counts["connects"] == 0

    asyncio.run(run())


def test_a_cancelled_run_once_leaves_no_connection(socket_path: Path) -> None:
    async def run() -> None:
        async with FakeRuntime(socket_path, handshake) as runtime:
            session = Session(socket_path, "restore", "50", Recorder())
            running = asyncio.create_task(session.run_once())
            await until(lambda: session.ready)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            async with asyncio.timeout(PATIENCE_S):
                await runtime.plugins[0].ended.wait()

    asyncio.run(run())


def test_an_on_ready_that_fails_does_not_end_the_session(socket_path: Path) -> None:
    def fail(runtime: object) -> None:
        raise RuntimeError("no")

    async def run() -> None:
        async with FakeRuntime(socket_path, handshake) as runtime:
            session = Session(socket_path, "restore", "50", Recorder())
            running = asyncio.create_task(session.run_once(fail))
            await until(lambda: session.ready)
            assert (await create(runtime.plugins[0])).status.code == 0
            assert session.counts["handler_errors"] == 1
            await session.close()
            await running

    asyncio.run(run())


def test_a_bad_name_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="plugin name"):
        Session(Path("/nowhere"), "no good", "50", Recorder())
