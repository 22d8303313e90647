"""What comparing a checkpoint of many processes with the live container takes: the first time, and for a replica."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final

from nri_plugin.restore.verify import Verdicts
from shared.archive import open_checkpoint
from shared.criu.tmpfs import read_tmpfs
from shared.judge import NodeSide, PodIdentity, read, seccomp, seccomp_program
from shared.metadata import read_checkpoint
from tests.bench.measurement import Benchmark, Result, compare
from tests.bench.setting import MANY, Setting

_FIRST_MS, _AGAIN_MS = 25.0, 1.0
_REPLICAS: Final = 5
NODE: Final = NodeSide("6.18.0")


def _ms(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def _measure(setting: Setting, runs: int) -> Iterator[Result]:
    with open_checkpoint(setting.many.archive) as files:
        checkpoint = read_checkpoint(files)
        reading = [_ms(lambda: read(files)) for _ in range(runs)]
        dump = read(files).dump
        special = read_tmpfs(files, dump.mounts)
    processes = len(dump.tasks)
    assert processes >= MANY
    live = [replace(checkpoint.spec, hostname=f"pod-{number}") for number in range(_REPLICAS)]
    first, again = [], []
    for _ in range(runs):
        # A worker that has judged no filter and no profile yet.
        seccomp_program.read_filter.cache_clear()
        seccomp.granted.cache_clear()
        verify = partial(Verdicts().verify, "digest", dump, checkpoint.spec)
        took = [_ms(partial(verify, spec, PodIdentity(), special, frozenset(), NODE)) for spec in live]
        first.append(took[0])
        again += took[1:]
    yield compare(
        f"verification of {processes} processes",
        "ms",
        first,
        goal=f"at most {_FIRST_MS:g} ms",
        limit=lambda _: _FIRST_MS,
    )
    yield compare(
        "verification for a replica", "ms", again, goal=f"at most {_AGAIN_MS:g} ms", limit=lambda _: _AGAIN_MS
    )
    yield compare(f"reading the images of {processes} processes", "ms", reading)


BENCHMARKS: Final = (Benchmark("verify", "comparing a checkpoint of 64 processes with its pod", 20, _measure),)
