"""The workload most tests restore: prints a number at an interval and writes it to /root/count, changes two files."""

from __future__ import annotations

import itertools
from typing import Final

from tests.e2e.node.kubelet import Container, Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.specs import ContainerSpec, PodSpec

COUNT: Final = "/root/count"
CREATED: Final = "/root/testfile"
DELETED: Final = "/etc/motd"

_SCRIPT: Final = (
    "echo made > {created}; rm {deleted}; trap 'echo bye; exit 3' TERM; i=0; "
    "while :; do i=$((i+1)); echo $i; echo $i > {count}; sleep {interval}; done"
)

_numbers = itertools.count(1)


def counter(image: str, *, interval_s: float = 0.1, name: str = "counter") -> ContainerSpec:
    """Counts from 1; on SIGTERM it prints ``bye`` and exits with 3."""
    script = _SCRIPT.format(created=CREATED, deleted=DELETED, count=COUNT, interval=interval_s)
    return ContainerSpec(image, name=name, command=("sh", "-c", script))


def count(container: Container) -> int:
    """The number it wrote last; the file is empty for a moment at each step."""
    while not (text := container.sh(f"cat {COUNT}").strip()):
        continue
    return int(text)


def printed(container: Container) -> list[int]:
    """All numbers in its log, in order."""
    return [int(line) for line in container.logs() if line.isdigit()]


def counts_without_gap(container: Container) -> bool:
    """Whether its log, read once, has every number from 1 on and none twice."""
    numbers = printed(container)
    return numbers == list(range(1, len(numbers) + 1))


def running_counter(
    kubelet: Kubelet, spec: ContainerSpec, *, pod: PodSpec | None = None, at_least: int = 3
) -> Container:
    """A pod with a counter that has printed ``at_least`` so many numbers."""
    made = kubelet.run_pod(pod or PodSpec(f"counter-{next(_numbers)}"))
    container = made.run(spec)
    container.wait_for(lambda each: len(printed(each)) >= at_least, f"the counter to reach {at_least}")
    return container


def take_checkpoint(node: Node, container: Container) -> str:
    """Checkpoints a running container through the CRI (containerd 2.x); returns the archive's path on the node.

    The container goes on; raises CriError (UNIMPLEMENTED on 1.7).
    """
    location = f"/var/lib/checkpoints/{container.id[:12]}-{next(_numbers)}.tar"
    node.path("/var/lib/checkpoints").mkdir(parents=True, exist_ok=True)
    node.cri.checkpoint_container(container.id, location)
    return location
