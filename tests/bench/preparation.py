"""What the daemon's worker does for one container: the first of a checkpoint image on the node, and later ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Final

from shared.contract import ImageFormat
from tests.bench.measurement import Benchmark, Result, compare, take_turns
from tests.bench.setting import Setting
from tests.e2e.node.kubelet import Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import KEEPS_NOTHING, Taken, have, with_daemon

_REPORT: Final = re.compile(r"/(?P<name>\S+) \([0-9a-f]+\): ready in (?P<total>\d+) ms: (?P<phases>.*)$", re.MULTILINE)


def _prepared(node: Node, kubelet: Kubelet, taken: Taken, image: str) -> tuple[float, float]:
    """Milliseconds of two preparations: with nothing of the image on the node but its layers, and with all of it."""
    if node.daemon is not None and node.daemon.running:
        node.stop_daemon()
    with_daemon(node, KEEPS_NOTHING)
    seen = len(_reports(node))
    for name in ("first", "second"):
        kubelet.run(taken.pod(name), taken.restored(image))
    wait_for(lambda: len(_reports(node)) >= seen + 2, "the worker's reports")
    cold, warm = _reports(node)[seen:]
    kubelet.remove_all()
    return float(cold), float(warm)


def _reports(node: Node) -> list[str]:
    assert node.daemon
    return [found["total"] for found in _REPORT.finditer(node.daemon.output())]


def _measure(setting: Setting, runs: int) -> Iterator[Result]:
    node = setting.node("containerd-1.7")
    kubelet = Kubelet(node)
    formats: tuple[ImageFormat, ...] = ("archive", "layered")
    figures: dict[ImageFormat, list[tuple[float, float]]] = {each: [] for each in formats}
    images = {each: setting.images.of(setting.small, each) for each in formats}
    have(node, *images.values())

    def one(image_format: ImageFormat) -> float:
        both = _prepared(node, kubelet, setting.small, images[image_format])
        figures[image_format].append(both)
        return both[1]

    try:
        take_turns(runs, *(partial(one, each) for each in formats))
    finally:
        kubelet.remove_all()
        if node.daemon is not None and node.daemon.running:
            node.stop_daemon()
    for image_format, pairs in figures.items():
        cold, warm = zip(*pairs[1:], strict=True)
        yield compare(f"preparation, {image_format} image", "ms", warm, cold, "first of an image")


BENCHMARKS: Final = (Benchmark("prepare", "the worker's preparation, first of an image and later ones", 4, _measure),)
