"""Building and pushing the image of a 512 MiB archive: beside one SHA-256 pass over it, and beside buildah."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, get_args

from shared.contract import ImageFormat
from shared.run import run
from tests.bench.measurement import Benchmark, Result, compare, take_turns
from tests.bench.setting import Setting
from tests.e2e.node.places import CHECKOUT

_GOAL: Final = 1.5
_GOAL_RSS_MIB: Final = 150.0

_TIMED: Final = """
import json, resource, sys, time
began = time.perf_counter()
{work}
spent = time.perf_counter() - began
print(json.dumps([spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""
_HASHED: Final = """
import hashlib
digest = hashlib.sha256()
with open(sys.argv[1], "rb", buffering=0) as archive:
    while piece := archive.read(256 << 10):
        digest.update(piece)
"""
_BUILT: Final = """
from kubectl_restore.cli import app
app(sys.argv[1:], standalone_mode=False)
"""


def _python(work: str, words: Sequence[str | Path]) -> tuple[float, float]:
    """Seconds of ``work`` in a Python of its own, without that one's start, and its peak RSS in MiB."""
    script = _TIMED.format(work=work.strip())
    said = run(
        [sys.executable, "-c", script, *words], timeout_s=300, env={"PYTHONPATH": str(CHECKOUT), "HOME": "/root"}
    )
    spent, peak_kib = json.loads(said.stdout)
    return spent, peak_kib / 1024


class _Builds:
    """Our builds of one checkpoint, and the most memory that one of them took."""

    def __init__(self, setting: Setting) -> None:
        self.taken = setting.large
        self.folder = setting.folder / "layouts"
        self.base = setting.pushed_base
        self.repository = f"{setting.registry.address}/bench"
        self.peak_mib = 0.0

    def __call__(self, image_format: ImageFormat, *destination: str) -> float:
        """Seconds of the whole command, its imports included; each image goes into a repository of its own."""
        tag = f"{self.repository}/{secrets.token_hex(4)}:1"
        words = ["build", str(self.taken.archive), "-t", tag, "--format", image_format, "--base", self.base]
        spent, peak_mib = _python(_BUILT, [*words, *destination, "--plain-http", "-q"])
        self.peak_mib = max(self.peak_mib, peak_mib)
        return spent

    def to_layout(self, image_format: ImageFormat) -> float:
        shutil.rmtree(self.folder, ignore_errors=True)
        return self(image_format, "--oci-layout", str(self.folder))

    def pushed(self, image_format: ImageFormat) -> float:
        return self(image_format, "--push")

    def hashed(self) -> float:
        return _python(_HASHED, [self.taken.archive])[0]


def _layouts(setting: Setting, runs: int) -> Iterator[Result]:
    builds = _Builds(setting)
    sides = [partial(builds.to_layout, each) for each in get_args(ImageFormat)]
    sides += [partial(builds.pushed, each) for each in get_args(ImageFormat)]
    *ours, hashed = take_turns(runs, *sides, builds.hashed)
    shutil.rmtree(builds.folder)
    for number, figures in enumerate(ours):
        image_format = get_args(ImageFormat)[number % 2]
        to, goal = ("build to OCI layout", True) if number < 2 else ("build and push", False)
        yield compare(
            f"{to}, {image_format}, 512 MiB",
            "s",
            figures,
            hashed,
            "SHA-256 pass",
            goal=f"at most {_GOAL:g} times the pass" if goal else "",
            limit=(lambda other: _GOAL * other) if goal else None,
        )
    yield Result(
        "peak RSS of a 512 MiB build",
        "MiB",
        builds.peak_mib,
        runs=(runs + 1) * len(ours),
        goal=f"at most {_GOAL_RSS_MIB:g} MiB",
        limit=_GOAL_RSS_MIB,
    )


_RECIPE: Final = """
rm -rf /var/lib/containers/cache
container=$(buildah from scratch)
buildah add -q $container {archive} /
buildah config --annotation=org.criu.checkpoint.container.name=large $container
buildah commit -q $container {image}
buildah push -q --tls-verify=false {image}
"""
"""The one of the Kubernetes blog, "Forensic container checkpointing"; without its cache nothing counts as pushed."""


def _buildah(setting: Setting, runs: int) -> Iterator[Result]:
    builds = _Builds(setting)
    node = setting.node("containerd-1.7")
    archive = "/var/lib/containers/large.tar"
    shutil.copyfile(builds.taken.archive, node.path(archive))

    def recipe() -> float:
        image = f"{builds.repository}/{secrets.token_hex(4)}:1"
        began = time.perf_counter()
        node.sh(_RECIPE.format(archive=archive, image=image), timeout_s=300)
        spent = time.perf_counter() - began
        node.sh("buildah rm -a >/dev/null; buildah rmi -a >/dev/null", timeout_s=60)
        return spent

    ours, theirs = take_turns(runs, partial(builds.pushed, "archive"), recipe, warm_up=False)
    node.path(archive).unlink()
    yield compare("archive to pushed image, 512 MiB", "s", ours, theirs, "buildah")


BENCHMARKS: Final = (
    Benchmark("build", "building the image of a 512 MiB archive, beside one SHA-256 pass over it", 4, _layouts),
    Benchmark("buildah", "the same archive built and pushed with buildah", 2, _buildah),
)
