"""What benchmarks run on: nodes, a registry and checkpoints, each started or made when first asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.e2e.node.counter import counter, printed
from tests.e2e.node.image import busybox_image
from tests.e2e.node.kubelet import Container, Kubelet
from tests.e2e.node.network import Network
from tests.e2e.node.node import Node
from tests.e2e.node.places import cache
from tests.e2e.node.registry import PORT, Registry
from tests.e2e.node.roots import Flavour, base_root
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.node.sweep import sweep
from tests.e2e.restoring import Images, Taken, checkpointed, push_base

LARGE_BYTES: Final = 512 << 20
MANY: Final = 64
HUGE_BYTES: Final = 2 << 30


class Setting:
    """``with Setting() as setting: setting.node("containerd-1.7")``; everything is gone afterwards."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._nodes: dict[Flavour, Node] = {}

    def __enter__(self) -> Self:
        sweep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @cached_property
    def folder(self) -> Path:
        """Of the host, on disk, for archives and layouts."""
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=cache())))

    @cached_property
    def network(self) -> Network:
        return self._stack.enter_context(Network())

    @cached_property
    def registry(self) -> Registry:
        return self._stack.enter_context(Registry(self.network))

    @cached_property
    def images(self) -> Images:
        return Images(self.registry)

    @cached_property
    def base(self) -> str:
        """The base image of every checkpoint here, as nodes call it."""
        return push_base(self.registry, busybox_image(base_root("containerd-1.7")), "busybox:1")

    @cached_property
    def pushed_base(self) -> str:
        """The same image as the host calls it."""
        return self.base.replace(f"localhost:{PORT}", self.registry.address)

    def node(self, flavour: Flavour) -> Node:
        """A running node that has the base image; the daemon is the benchmark's to start."""
        if flavour not in self._nodes:
            node = self._stack.enter_context(Node(flavour, self.network))
            node.trust(self.registry, "localhost:5000")
            # containerd's own restore pulls the base image without any registry configuration.
            node.relay(self.registry)
            node.cri.pull_image(self.base)
            self._nodes[flavour] = node
        return self._nodes[flavour]

    @cached_property
    def small(self) -> Taken:
        """A counter of one process and half a megabyte."""
        return self._taken("small", counter(self.base, interval_s=1), lambda each: len(printed(each)) > 0)

    @cached_property
    def large(self) -> Taken:
        """A process with LARGE_BYTES of random bytes in its memory, blocked in writing them to a pipe."""
        return self._filled("large", LARGE_BYTES)

    @cached_property
    def huge(self) -> Taken:
        """The same with HUGE_BYTES."""
        return self._filled("huge", HUGE_BYTES)

    def _filled(self, name: str, size: int) -> Taken:
        # In a loop: a sleep that was dumped ends as soon as it is restored.
        script = f"dd if=/dev/urandom bs={size} count=1 iflag=fullblock | while :; do sleep 1000; done"
        spec = ContainerSpec(self.base, name, ("sh", "-c", script))
        return self._taken(name, spec, partial(_memory_is_full, size))

    @cached_property
    def many(self) -> Taken:
        """MANY processes under the runtime's seccomp profile."""
        script = f"i=1; while [ $((i+=1)) -le {MANY} ]; do sleep 100000 & done; echo all; while :; do wait; done"
        spec = ContainerSpec(self.base, "many", ("sh", "-c", script), seccomp="RuntimeDefault")
        return self._taken("many", spec, lambda each: each.logs() == ["all"])

    def _taken(self, name: str, spec: ContainerSpec, ready: Callable[[Container], bool]) -> Taken:
        return checkpointed(Kubelet(self.node("containerd-2.1")), self.folder, PodSpec(name), spec, ready)


def _memory_is_full(size: int, container: Container) -> bool:
    resident = container.sh("grep -h VmRSS /proc/[0-9]*/status 2>/dev/null; true").split()
    return max(int(word) for word in resident if word.isdigit()) >= size >> 10
