"""What most restore tests need: a daemon on the node, checkpoint images in the registry, and pods that restore them."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from shared.contract import HANDLER, POD_CHECKPOINT, ImageFormat
from shared.run import run
from tests.e2e.node.counter import take_checkpoint
from tests.e2e.node.image import OciImage
from tests.e2e.node.kubelet import Container, Kubelet, Pod
from tests.e2e.node.node import DAEMON_CONFIGURATION, Node
from tests.e2e.node.places import CHECKOUT
from tests.e2e.node.program import Program
from tests.e2e.node.registry import PORT, Registry
from tests.e2e.node.specs import ContainerSpec, PodSpec

Mode = Literal["image", "annotation"]
"""Whether the pod's image is the checkpoint image, or its base image with an annotation that names the other."""

KEEPS_NOTHING: Final = "[cache]\nunused = 0\n"
"""Configuration under which a removed container leaves nothing at all on the node."""
WAITS: Final = "[limits]\nanswer_s = 1.5\n"
"""Configuration under which CreateContainer says what the quick checks refuse on a busy machine too."""
KEEPS: Final = ""
"""The default configuration: prepared root file systems stay for the next restore."""

_BUILD: Final = "from kubectl_restore.cli import main; main()"


def with_daemon(node: Node, configuration: str = KEEPS_NOTHING) -> Program:
    """The node's daemon, running with this configuration; started (again) only when it is not."""
    if node.daemon is not None and node.daemon.running:
        if node.path(DAEMON_CONFIGURATION).read_text() == configuration:
            return node.daemon
        node.stop_daemon()
    return node.start_daemon(configuration)


def local(name: str) -> str:
    """A repository of the tests' registry as checkpoints record it: under a name that every node resolves."""
    return f"localhost:{PORT}/{name}"


@dataclass(frozen=True)
class Taken:
    """A checkpoint archive, and what a pod must say to restore it."""

    archive: Path
    base: str
    """The base image as the registry is called on every node (``local``)."""
    spec: ContainerSpec
    """The container as it was; its image is the base image."""
    service_account: bool = True
    handler: str = HANDLER

    @property
    def name(self) -> str:
        return self.archive.name.removesuffix(".tar")

    def member(self, name: str) -> bytes:
        """Content of one file of the archive."""
        with tarfile.open(self.archive) as tar:
            content = tar.extractfile(name)
            assert content is not None
            return content.read()

    def json(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.member(name))
        return document

    @cached_property
    def logged(self) -> list[str]:
        """Texts of the log in the archive, lines written after the freeze included."""
        return [line.split(" ", 3)[3] for line in self.member("container.log").decode().splitlines()]

    def diff(self, path: str) -> bytes:
        """Content of a file in the rootfs diff."""
        with tarfile.open(fileobj=io.BytesIO(self.member("rootfs-diff.tar"))) as tar:
            content = tar.extractfile(path)
            assert content is not None
            return content.read()

    def pod(self, name: str, **changes: Any) -> PodSpec:
        """A pod under our handler that gives what the dumped container had."""
        return PodSpec(name, **{"handler": self.handler, "service_account": self.service_account, **changes})

    def restored(self, image: str, **changes: Any) -> ContainerSpec:
        """The container in image mode: no command, the checkpoint image has it."""
        return replace(self.spec, image=image, command=(), args=(), env={}, **changes)

    def annotated(self, name: str, image: str, **changes: Any) -> PodSpec:
        """The pod in annotation mode; its container is ``spec`` as it was, other containers are ordinary."""
        annotations = {f"{POD_CHECKPOINT}.{self.spec.name}": image, **changes.pop("annotations", {})}
        return self.pod(name, annotations=annotations, **changes)


@dataclass
class Images:
    """Checkpoint images in the registry, built by the product, each once a session."""

    registry: Registry
    built: dict[tuple[Path, str], str] = field(default_factory=dict)

    def of(self, taken: Taken, image_format: ImageFormat, compression: str = "") -> str:
        """Reference of the checkpoint image of this format, as nodes call it."""
        tag = f"{image_format}-{compression}" if compression else image_format
        key = taken.archive, tag
        if key not in self.built:
            name = f"checkpoints/{taken.name}:{tag}"
            reference = f"{self.registry.address}/{name}"
            base = taken.base.replace(f"localhost:{PORT}", self.registry.address)
            words: list[str | Path] = [taken.archive, "-t", reference, "--format", image_format, "--base", base]
            words += ["--compress", compression] if compression else []
            command = [sys.executable, "-c", _BUILD, "build", *words, "--push", "--plain-http", "-q"]
            run(command, timeout_s=300, env={"PYTHONPATH": str(CHECKOUT), "HOME": "/root"})
            self.built[key] = local(name)
        return self.built[key]


def have(node: Node, *references: str) -> None:
    """Pulls what is not on the node, as the kubelet does before it creates a container."""
    for reference in references:
        if node.cri.image_status(reference) is None:
            node.cri.pull_image(reference)


def push_base(registry: Registry, image: OciImage, name: str) -> str:
    """Pushes a base image as ``REPOSITORY:TAG``; returns its name as nodes call it."""
    registry.push(image, name)
    return local(name)


def checkpointed(
    kubelet: Kubelet,
    folder: Path,
    pod: PodSpec,
    spec: ContainerSpec,
    ready: Callable[[Container], bool],
) -> Taken:
    """Runs a container on a containerd 2.x node, checkpoints it when it is ``ready``, and removes its pod."""
    node = kubelet.node
    have(node, spec.image)
    running = kubelet.run_pod(pod)
    container = running.run(spec)
    container.wait_for(ready, "the container to be ready for its checkpoint")
    location = take_checkpoint(node, container)
    archive = folder / f"{pod.name}.tar"
    shutil.copyfile(node.path(location), archive)
    node.path(location).unlink()
    running.remove(grace_s=0)
    kubelet.pods.remove(running)
    return Taken(archive, spec.image, spec, pod.service_account)


def resumed(kubelet: Kubelet, taken: Taken, image: str, mode: Mode, name: str, **pod: Any) -> Container:
    """The checkpoint image restored in a new pod, started; raises CriError."""
    if mode == "image":
        have(kubelet.node, image)
        return kubelet.run_pod(taken.pod(name, **pod)).run(taken.restored(image))
    have(kubelet.node, taken.base)
    return kubelet.run_pod(taken.annotated(name, image, **pod)).run(taken.spec)


def cgroup_value(pod: Pod, container: Container, *names: str) -> str:
    """What the first of these files of the container's cgroup says (v1 and v2 call them differently)."""
    tests = " -o ".join(f"-name {name}" for name in names)
    script = f"find /sys/fs/cgroup -path '*{container.id}*' \\( {tests} \\) -exec cat {{}} \\; | head -n 1"
    return pod.node.sh(script).strip()
