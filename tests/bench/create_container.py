"""What an ordinary container pays for the daemon: CreateContainer with it on and off, and the NRI round trip alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from tests.bench.measurement import Benchmark, Result, compare
from tests.bench.nri_round_trip import round_trips_s
from tests.bench.setting import Setting
from tests.e2e.node.kubelet import Kubelet, Pod
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.restoring import KEEPS, with_daemon

_BLOCK: Final = 10
"""Containers created before the daemon is switched on or off again."""
_SETTLED_S: Final = 3.0
"""From the switch to the first container: by then the worker has loaded its modules and looked the node over."""
_GOAL_MS: Final = 0.4


def _created(pod: Pod, spec: ContainerSpec) -> float:
    """Milliseconds of CreateContainer; the container is removed, untimed."""
    began = time.perf_counter()
    container = pod.create(spec)
    spent = time.perf_counter() - began
    container.remove()
    pod.containers.remove(container)
    return spent * 1000


def _create(setting: Setting, runs: int) -> Iterator[Result]:
    node = setting.node("containerd-1.7")
    kubelet = Kubelet(node)
    spec = ContainerSpec(setting.base, command=("sleep", "1000"))
    figures: dict[bool, list[float]] = {True: [], False: []}
    try:
        pod = kubelet.run_pod(PodSpec("ordinary"))
        for block in range(2 * -(-runs // _BLOCK)):
            # on, off, off, on, on …: what drifts meanwhile meets both sides alike.
            switched_on = block % 4 in (0, 3)
            if switched_on:
                with_daemon(node, KEEPS)
            elif node.daemon is not None and node.daemon.running:
                node.stop_daemon()
            time.sleep(_SETTLED_S)
            _created(pod, spec)
            figures[switched_on] += [_created(pod, spec) for _ in range(_BLOCK)]
    finally:
        kubelet.remove_all()
        if node.daemon is not None and node.daemon.running:
            node.stop_daemon()
    yield compare("CreateContainer of an ordinary container", "ms", figures[True], figures[False], "without the daemon")


def _round_trip(setting: Setting, runs: int) -> Iterator[Result]:
    for name, count, pause_s in (("back to back", runs, 0.0), ("10 ms apart", max(1, runs // 10), 0.01)):
        yield compare(
            f"NRI round trip, {name}",
            "ms",
            [spent * 1000 for spent in round_trips_s(count, pause_s)],
            goal=f"at most {_GOAL_MS} ms",
            limit=lambda _: _GOAL_MS,
        )


BENCHMARKS: Final = (
    Benchmark("nri", "one NRI CreateContainer, 4.4 KB, between a bare socket and our session", 4000, _round_trip),
    Benchmark("create", "CreateContainer of an ordinary container, daemon on and off", 60, _create),
)
