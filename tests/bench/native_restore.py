"""containerd 2.1's own restore of an archive image, beside ours of a layered one on the same node; and their pulls."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final

from tests.bench.measurement import Benchmark, Result, compare, take_turns
from tests.bench.setting import Setting
from tests.e2e.node.kubelet import Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.restoring import KEEPS, Taken, have, with_daemon

_numbers = itertools.count()


def _resumed(kubelet: Kubelet, pod: Callable[[str], PodSpec], spec: ContainerSpec) -> float:
    """Milliseconds from CreateContainer until StartContainer has answered; the pod is removed, untimed."""
    made = kubelet.run_pod(pod(f"restored-{next(_numbers)}"))
    began = time.perf_counter()
    container = made.create(spec, deadline_s=120)
    container.start(deadline_s=120)
    spent = time.perf_counter() - began
    made.remove(grace_s=0)
    kubelet.pods.remove(made)
    return spent * 1000


def _beside(setting: Setting, runs: int, taken: Taken) -> Iterator[Result]:
    node = setting.node("containerd-2.1")
    with_daemon(node, KEEPS)
    kubelet = Kubelet(node)
    layered, archive = setting.images.of(taken, "layered"), setting.images.of(taken, "archive")
    have(node, layered, archive)
    default = replace(taken, handler="")
    sides = (
        partial(_resumed, kubelet, taken.pod, taken.restored(layered)),
        partial(_resumed, kubelet, taken.pod, taken.restored(archive)),
        # Its restored container has the request's command, which nothing runs.
        partial(_resumed, kubelet, default.pod, replace(taken.spec, image=archive)),
    )
    try:
        ours, taken_over, native = take_turns(runs, *sides)
    finally:
        kubelet.remove_all()
        node.stop_daemon()
    rival = "containerd 2.1's own"
    yield compare(f"create and start, layered image, {taken.name} process", "ms", ours, native, rival)
    yield compare(f"create and start, archive image, {taken.name} process", "ms", taken_over, native, rival)


def _small(setting: Setting, runs: int) -> Iterator[Result]:
    return _beside(setting, runs, setting.small)


def _large(setting: Setting, runs: int) -> Iterator[Result]:
    return _beside(setting, runs, setting.large)


def _pulled(node: Node, image: str) -> float:
    """Seconds of PullImage of an image that the node does not have; of its layers it has the base image's."""
    if node.cri.image_status(image) is not None:
        node.cri.remove_image(image, deadline_s=60)
    began = time.perf_counter()
    node.cri.pull_image(image, deadline_s=120)
    return time.perf_counter() - began


def _pull(setting: Setting, runs: int) -> Iterator[Result]:
    node = setting.node("containerd-1.7")
    layered, archive = (setting.images.of(setting.large, each) for each in ("layered", "archive"))
    ours, theirs = take_turns(runs, partial(_pulled, node, layered), partial(_pulled, node, archive))
    yield compare("pull of a layered image, 512 MiB", "s", ours, theirs, "archive image")


BENCHMARKS: Final = (
    Benchmark("native", "create and start on containerd 2.1, beside its own restore", 8, _small),
    Benchmark("native-large", "the same for a process with 512 MiB of memory", 3, _large),
    Benchmark("pull", "pulling the layered image of a 512 MiB checkpoint, beside the archive image", 3, _pull),
)
