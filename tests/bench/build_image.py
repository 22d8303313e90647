"""Building and pushing the image of a 512 MiB archive, beside one SHA-256 pass over it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, get_args

from shared.contract import ImageFormat
from shared.run import run
from tests.bench.measurement import Benchmark, Result, compare, take_turns
from tests.bench.setting import Setting
from tests.e2e.node.places import CHECKOUT
from tests.e2e.restoring import Taken

_GOAL: Final = 1.5
_GOAL_RSS_MIB: Final = 150.0

_TIMED: Final = """
import json, resource, sys, time
{prepare}
began = time.perf_counter()
{work}
spent = time.perf_counter() - began
print(json.dumps([spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""
_HASHED: Final = """
digest = hashlib.sha256()
with open(sys.argv[1], "rb", buffering=0) as archive:
    while piece := archive.read(256 << 10):
        digest.update(piece)
"""
_IMPORTED: Final = """
from kubectl_restore.cli import application
import kubectl_restore.image.build, kubectl_restore.image.layout, kubectl_restore.image.registry_images
app = application("build")
"""
_COMMAND: Final = "from kubectl_restore.cli import main; main()"
_BUILT: Final = """
app(sys.argv[1:], standalone_mode=False)
"""


@dataclass(frozen=True)
class _Run:
    """One run of a Python program."""

    spent_s: float
    """Of its work, once everything is imported."""
    whole_s: float
    """From the start of the process to its end."""
    peak_mib: float
    """Largest resident set."""


def _python(prepare: str, work: str, words: Sequence[str | Path]) -> _Run:
    script = _TIMED.format(prepare=prepare.strip(), work=work.strip())
    os.sync()  # what an earlier run wrote must not be written now
    began = time.perf_counter()
    said = run(
        [sys.executable, "-c", script, *words], timeout_s=300, env={"PYTHONPATH": str(CHECKOUT), "HOME": "/root"}
    )
    whole_s = time.perf_counter() - began
    spent_s, peak_kib = json.loads(said.stdout)
    return _Run(spent_s, whole_s, peak_kib / 1024)


class Builds:
    """Our builds of one checkpoint, and the most memory that one of them took."""

    def __init__(self, setting: Setting, taken: Taken) -> None:
        self.archive = taken.archive
        self.folder = setting.folder / "layouts"
        self.base = setting.pushed_base
        self.repository = f"{setting.registry.address}/bench"
        self.runs: dict[str, list[_Run]] = defaultdict(list)

    def __call__(self, image_format: ImageFormat, *destination: str) -> float:
        """Seconds of one build; each image goes into a repository of its own."""
        tag = f"{self.repository}/{secrets.token_hex(4)}:1"
        words = ["build", str(self.archive), "-t", tag, "--format", image_format, "--base", self.base]
        done = _python(_IMPORTED, _BUILT, [*words, *destination, "--plain-http", "-q"])
        self.runs[" ".join((image_format, *destination[:1]))].append(done)
        return done.spent_s

    def to_layout(self, image_format: ImageFormat) -> float:
        shutil.rmtree(self.folder, ignore_errors=True)
        return self(image_format, "--oci-layout", str(self.folder))

    def command(self) -> float:
        """Seconds of the whole command, as a user runs it, archive to OCI layout."""
        shutil.rmtree(self.folder, ignore_errors=True)
        words: list[str | Path] = [
            "build",
            self.archive,
            "-t",
            f"{self.repository}/whole:1",
            "--format",
            "archive",
            "--base",
            self.base,
        ]
        os.sync()
        began = time.perf_counter()
        run(
            [sys.executable, "-c", _COMMAND, *words, "--oci-layout", self.folder, "--plain-http", "-q"],
            timeout_s=300,
            env={"PYTHONPATH": str(CHECKOUT), "HOME": "/root"},
        )
        return time.perf_counter() - began

    def pushed(self, image_format: ImageFormat, *options: str) -> float:
        return self(image_format, "--push", *options)

    def hashed(self) -> float:
        done = _python("import hashlib", _HASHED, [self.archive])
        self.runs["hashed"].append(done)
        return done.spent_s


def _limit(other: float) -> float:
    return _GOAL * other


def _layouts(setting: Setting, runs: int) -> Iterator[Result]:
    builds = Builds(setting, setting.large)
    formats = get_args(ImageFormat)
    sides = [partial(builds.to_layout, each) for each in formats]
    *ours, whole, hashed = take_turns(runs, *sides, builds.command, builds.hashed)
    shutil.rmtree(builds.folder)
    goal = f"at most {_GOAL:g} times the pass"
    for image_format, figures in zip(formats, ours, strict=True):
        name = f"build to OCI layout, {image_format}, 512 MiB"
        yield compare(name, "s", figures, hashed, "SHA-256 pass", goal=goal, limit=_limit)
    pass_whole = [run.whole_s for run in builds.runs["hashed"][1:]]
    name = "the whole command, archive to OCI layout"
    yield compare(name, "s", whole, pass_whole, "SHA-256 pass, whole process", goal=goal, limit=_limit)
    peaks = [run.peak_mib for side, each in builds.runs.items() if side != "hashed" for run in each]
    goal = f"at most {_GOAL_RSS_MIB:g} MiB"
    name = "largest RSS of a 512 MiB build"
    yield Result(name, "MiB", max(peaks), runs=len(peaks), goal=goal, limit=_GOAL_RSS_MIB)


def _pushes(setting: Setting, runs: int) -> Iterator[Result]:
    builds = Builds(setting, setting.large)
    formats = get_args(ImageFormat)
    *ours, hashed = take_turns(runs, *(partial(builds.pushed, each) for each in formats), builds.hashed)
    for image_format, figures in zip(formats, ours, strict=True):
        yield compare(f"build and push, {image_format}, 512 MiB", "s", figures, hashed, "SHA-256 pass")


BENCHMARKS: Final = (
    Benchmark("build", "building the image of a 512 MiB archive, beside one SHA-256 pass over it", 6, _layouts),
    Benchmark("push", "building and pushing the image of a 512 MiB archive", 3, _pushes),
)
