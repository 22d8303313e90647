"""Records one NRI session of every node flavour's containerd into tests/data/nri; run by hand when they change.

``python -m tests.e2e.record_nri``: a pod that is there before, then in another pod an ordinary container, one that is
adjusted, and one that is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from pathlib import Path

from nri_plugin.nri.nri_pb2 import ContainerAdjustment
from shared.errors import Refused
from tests.e2e.node.cri import CriError
from tests.e2e.node.image import busybox_image
from tests.e2e.node.kubelet import Kubelet
from tests.e2e.node.network import Network
from tests.e2e.node.node import Node
from tests.e2e.node.roots import FLAVOURS, Flavour, base_root
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.node.waiting import wait_for
from tests.e2e.observed_session import SOCKET, Decision, ObservedSession
from tests.unit.nri_plugin.nri.recorded import ADJUSTMENTS, FOLDER, REFUSALS, write_recording


class RecordingSocket:
    """Listens on ``path``, passes everything to and from ``target``, and keeps it."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self.target = target
        self.chunks: list[tuple[str, bytes]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> RecordingSocket:
        self._thread.start()
        listening = asyncio.start_unix_server(self._connected, str(self.path))
        asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        runtime_reader, runtime_writer = await asyncio.open_unix_connection(str(self.target))

        async def copy(direction: str, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(1 << 20):
                    self.chunks.append((direction, data))
                    sink.write(data)
            sink.close()

        await asyncio.gather(copy(">", reader, runtime_writer), copy("<", runtime_reader, writer))


def decisions() -> dict[str, Decision]:
    async def adjusted() -> ContainerAdjustment:
        return ADJUSTMENTS["adjusted"]

    async def refused() -> ContainerAdjustment:
        raise Refused(*REFUSALS["refused"])

    return {"adjusted": adjusted, "refused": refused}


def record(flavour: Flavour) -> Path:
    """Records one session and returns the file."""
    with Network() as network, Node(flavour, network) as node, tempfile.TemporaryDirectory() as folder:
        image = node.import_image(busybox_image(base_root(flavour)), "nri-restore.test/busybox:1")
        kubelet = Kubelet(node)
        forever = ("sleep", "1000")
        kubelet.run(PodSpec("resident", service_account=False), ContainerSpec(image, "resident", forever))
        with (
            RecordingSocket(Path(folder) / "nri.sock", node.path(SOCKET)) as socket,
            ObservedSession(socket.path) as session,
        ):
            session.decisions = decisions()
            pod = kubelet.run_pod(PodSpec("visitor", service_account=False))
            ordinary = pod.run(ContainerSpec(image, "ordinary", forever))
            pod.create(ContainerSpec(image, "adjusted", forever))
            with contextlib.suppress(CriError):
                pod.create(ContainerSpec(image, "refused", forever))
            ordinary.stop()
            pod.remove()
            wait_for(lambda: ("stop pod", "visitor") in session.heard, "the end of the pod")
            runtime = session.session.runtime
            assert runtime is not None
        kubelet.remove_all()
    path = FOLDER / f"containerd-{runtime.version.partition('~')[0].partition('+')[0]}.hex"
    write_recording(path, f"{runtime.name} {runtime.version}, recorded by tests/e2e/record_nri.py", socket.chunks)
    return path


if __name__ == "__main__":
    for flavour in FLAVOURS:
        print(record(flavour))
