"""How long StartContainer of a restored container takes, beside a bare ``runc restore`` of the same images."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from shared.contract import ImageFormat
from tests.bench.bare_restore import bare_restore
from tests.bench.measurement import Benchmark, Result, Sample, compare, take_turns
from tests.bench.setting import Setting
from tests.e2e.node.kubelet import Kubelet
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.restoring import KEEPS, Taken, have, with_daemon

_ADDED_MS: Final = 50
_GOAL: Final = f"at most the bare restore and {_ADDED_MS} ms"
_numbers = itertools.count()


def restored_start(kubelet: Kubelet, pod: Callable[[str], PodSpec], spec: ContainerSpec) -> float:
    """Milliseconds of StartContainer, called as soon as CreateContainer has answered; its pod is removed, untimed."""
    made = kubelet.run_pod(pod(f"restored-{next(_numbers)}"))
    container = made.create(spec)
    began = time.perf_counter()
    container.start(deadline_s=120)
    spent = time.perf_counter() - began
    made.remove(grace_s=0)
    kubelet.pods.remove(made)
    return spent * 1000


def _measure(setting: Setting, runs: int, taken: Taken, *formats: ImageFormat, annotated: bool) -> Iterator[Result]:
    node = setting.node("containerd-1.7")
    with_daemon(node, KEEPS)
    kubelet = Kubelet(node)
    images = {each: setting.images.of(taken, each) for each in formats}
    sides: dict[str, Sample] = {}
    for image_format, image in images.items():
        have(node, image)
        sides[f"{image_format} image"] = partial(restored_start, kubelet, taken.pod, taken.restored(image))
    if annotated:
        pod = partial(taken.annotated, image=images["archive"])
        sides["annotation"] = partial(restored_start, kubelet, pod, taken.spec)
    try:
        with bare_restore(kubelet, taken, images[formats[0]]) as bare:
            *ours, floor = take_turns(runs, *sides.values(), bare)
    finally:
        kubelet.remove_all()
        node.stop_daemon()
    for side, figures in zip(sides, ours, strict=True):
        name = f"StartContainer, {side}, {taken.name} process"
        yield compare(name, "ms", figures, floor, "runc restore", goal=_GOAL, limit=lambda other: other + _ADDED_MS)


def _small(setting: Setting, runs: int) -> Iterator[Result]:
    return _measure(setting, runs, setting.small, "archive", "layered", annotated=True)


def _large(setting: Setting, runs: int) -> Iterator[Result]:
    return _measure(setting, runs, setting.large, "layered", "archive", annotated=False)


BENCHMARKS: Final = (
    Benchmark("start", "StartContainer of a restored counter, beside bare runc restore", 12, _small),
    Benchmark("start-large", "the same for a process with 512 MiB of memory", 5, _large),
)
