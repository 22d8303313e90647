"""What one ordinary CreateContainer costs the node: the round trip between a runtime and our session.

``python -m tests.bench.nri_round_trip`` prints it. The runtime here is a bare socket, so the time is ours and the
kernel's; goal: at most 400 µs in the median.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import statistics
import tempfile
import time
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path

from nri_plugin.nri.nri_pb2 import Container, ContainerAdjustment, CreateContainerRequest, Mount, PodSandbox
from nri_plugin.nri.session import Session
from tests.unit.nri_plugin.nri.fake_runtime import CONTAINERD_17, MUX, TTRPC, go_frames, request_bytes

# As large as a kubelet's: 4 KB, see tests/data/nri.
REQUEST = CreateContainerRequest(
    pod=PodSandbox(id="p" * 64, name="web", annotations={f"io.kubernetes.cri.key-{n}": "v" * 30 for n in range(16)}),
    container=Container(
        id="c" * 64,
        env=[f"SERVICE_{n}_PORT=" + "x" * 40 for n in range(30)],
        mounts=[
            Mount(destination=f"/mnt/{n}", source="/var/lib/kubelet/pods/x", type="bind", options=["rbind", "rw"])
            for n in range(12)
        ],
    ),
)


class Uninterested:
    """Owns nothing."""

    def owns(self, pod: PodSandbox, container: Container) -> bool:
        return "nri-restore/checkpoint" in pod.annotations

    async def create_container(
        self, pod: PodSandbox, container: Container, limit_s: float
    ) -> ContainerAdjustment | None: ...
    async def synchronize(self, pods: Sequence[PodSandbox], containers: Sequence[Container]) -> None: ...
    async def stop_container(self, pod: PodSandbox, container: Container) -> None: ...
    async def remove_container(self, pod: PodSandbox, container: Container) -> None: ...
    async def stop_pod_sandbox(self, pod: PodSandbox) -> None: ...
    async def remove_pod_sandbox(self, pod: PodSandbox) -> None: ...


def serve(path: str) -> None:
    """The session's process: until the connection ends."""

    async def run() -> None:
        await Session(Path(path), "bench", "50", Uninterested()).run_once()

    asyncio.run(run())


def round_trips_s(count: int, pause_s: float = 0.0) -> list[float]:
    """Seconds of ``count`` round trips, ``pause_s`` apart, after a hundred that do not count."""
    with tempfile.TemporaryDirectory(prefix="nri") as folder, socket.socket(socket.AF_UNIX) as listening:
        path = f"{folder}/nri.sock"
        listening.bind(path)
        listening.listen()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(path,))
        process.start()
        connection, _ = listening.accept()
        with connection, connection.makefile("rb") as answers:
            _read_message(answers)
            connection.sendall(go_frames(2, TTRPC.pack(0, 1, 2, 0)))
            payload = REQUEST.SerializeToString()
            calls = [("Configure", CONTAINERD_17.SerializeToString()), ("Synchronize", b"")]
            calls += [("CreateContainer", payload)] * (count + 100)
            times = []
            for n, (method, content) in enumerate(calls):
                request = go_frames(1, request_bytes(1 + 2 * n, method, content))
                time.sleep(pause_s)
                began = time.perf_counter()
                connection.sendall(request)
                answer_bytes = _read_message(answers)
                times.append(time.perf_counter() - began)
                assert method != "CreateContainer" or answer_bytes == 0, "the session did not leave the container alone"
        process.join(10)
    return times[-count:]


def _read_message(answers: BufferedReader) -> int:
    """Reads one ttrpc message and returns its payload's size."""
    _, length = MUX.unpack(answers.read(MUX.size))
    payload_bytes, *_ = TTRPC.unpack(answers.read(length))
    if payload_bytes:
        _, length = MUX.unpack(answers.read(MUX.size))
        answers.read(length)
    return int(payload_bytes)


def main() -> None:
    times = round_trips_s(5000)
    print(f"median {statistics.median(times) * 1e6:.0f} µs, p99 {sorted(times)[4950] * 1e6:.0f} µs, goal 400 µs")


if __name__ == "__main__":
    main()
