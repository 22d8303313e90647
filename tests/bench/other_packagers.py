"""From an archive to its pushed image, beside the ways that others describe: the blog's recipe, and checkpointctl's."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from tests.bench.build_image import Builds
from tests.bench.measurement import Benchmark, Result, Sample, compare, take_turns
from tests.bench.setting import Setting
from tests.e2e.node.node import Node

_BLOG: Final = """
rm -rf /var/lib/containers/cache
container=$(buildah from scratch)
buildah add -q $container {archive} /
buildah config --annotation=org.criu.checkpoint.container.name=large $container
buildah commit -q $container {image}
buildah push -q --tls-verify=false {image}
"""
"""The one of the Kubernetes blog, "Forensic container checkpointing"; without its cache nothing counts as pushed."""

_CHECKPOINTCTL: Final = """
rm -rf /var/lib/containers/cache
container=$(buildah from scratch)
buildah add -q $container {archive} /
keys='engine.name container.name pod.name pod.namespace runtime.name'
keys="$keys rootfsImageUserRequested rootfsImageName rootfsImageID"
for key in $keys; do buildah config --annotation org.criu.checkpoint.$key=large $container; done
id=$(buildah commit -q $container {image})
buildah manifest create {image}-manifest $id >/dev/null
for key in $keys; do
    buildah manifest annotate --index --annotation org.criu.checkpoint.$key=large {image}-manifest >/dev/null
done
buildah tag {image}-manifest {image}
buildah manifest push -q --all --tls-verify=false {image}-manifest docker://{image}
"""
"""What ``checkpointctl build`` runs (its internal/oci_image_build.go, version 1.4), and the push."""


def _measure(setting: Setting, runs: int) -> Iterator[Result]:
    node = setting.node("containerd-1.7")
    sizes = {"512 MiB": setting.large, "2 GiB": setting.huge}
    names: list[str] = []
    sides: list[Sample] = []
    for size, taken in sizes.items():
        builds = Builds(setting, taken)
        archive = f"/var/lib/containers/{taken.archive.name}"
        shutil.copyfile(taken.archive, node.path(archive))
        names += [f"ours, {size}", f"ours, gzip, {size}", f"buildah, {size}", f"checkpointctl's steps, {size}"]
        sides += [
            partial(builds.pushed, "archive"),
            partial(builds.pushed, "archive", "--compress", "gzip"),
            partial(_with_buildah, node, _BLOG, archive, builds.repository),
            partial(_with_buildah, node, _CHECKPOINTCTL, archive, builds.repository),
        ]
    figures = dict(zip(names, take_turns(runs, *sides, warm_up=False), strict=True))
    for size, taken in sizes.items():
        node.path(f"/var/lib/containers/{taken.archive.name}").unlink()
        for how, ours in (("", "ours"), (", gzip", "ours, gzip")):
            for rival in ("buildah", "checkpointctl's steps"):
                name = f"archive to pushed image{how}, {size}, beside {rival}"
                yield compare(name, "s", figures[f"{ours}, {size}"], figures[f"{rival}, {size}"], rival)


def _with_buildah(node: Node, script: str, archive: str, repository: str) -> float:
    image = f"{repository}/{secrets.token_hex(4)}:1"
    os.sync()
    began = time.perf_counter()
    node.sh(script.format(archive=archive, image=image), timeout_s=600)
    spent = time.perf_counter() - began
    node.sh("buildah rm -a >/dev/null; buildah rmi -a -f >/dev/null", timeout_s=60)
    return spent


BENCHMARKS: Final = (
    Benchmark(
        "buildah", "archives of 512 MiB and 2 GiB built and pushed, beside buildah and checkpointctl", 2, _measure
    ),
)
