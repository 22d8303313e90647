"""crun in the place of runc behind our runtime handler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.contract import ImageFormat
from tests.e2e.node.counter import printed
from tests.e2e.node.kubelet import Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.program import Program
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import Flavour
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.restoring import Images, Mode, Taken, checkpointed, have, local, resumed

WRAPPER_CONFIG = "/etc/nri-restore/restore-runc.conf"
WORKLOAD = "sleep 1000 & i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"


@pytest.fixture
def by_crun(node: Node) -> Iterator[None]:
    node.path(WRAPPER_CONFIG).write_text("runtime=/usr/bin/crun\n")
    yield
    node.path(WRAPPER_CONFIG).unlink()


@pytest.fixture(scope="session")
def two_processes(node_of: Callable[[Flavour], Node], registry: Registry, busybox: str, checkpoints: Path) -> Taken:
    spec = ContainerSpec(local("busybox:1"), "counter", ("sh", "-c", WORKLOAD))
    kubelet = Kubelet(node_of("containerd-2.1"))
    return checkpointed(kubelet, checkpoints, PodSpec("two"), spec, lambda each: len(printed(each)) > 3)


@pytest.mark.parametrize(("mode", "image_format"), [("image", "layered"), ("annotation", "archive")])
def test_counter_resumes_under_crun_in_its_own_cgroup(
    by_crun: None,
    node: Node,
    daemon: Program,
    kubelet: Kubelet,
    two_processes: Taken,
    images: Images,
    mode: Mode,
    image_format: ImageFormat,
) -> None:
    image = images.of(two_processes, image_format)
    have(node, image, two_processes.base)
    container = resumed(kubelet, two_processes, image, mode, f"crun-{mode}")
    last = int(two_processes.logged[-1])
    container.wait_for(lambda each: printed(each)[-1:] > [last], "new numbers")
    numbers = printed(container)
    assert numbers == list(range(1, len(numbers) + 1))
    assert container.sh("cat /proc/1/comm") == "sh\n"
    groups = container.sh("grep -h -e name=systemd -e memory /proc/[0-9]*/cgroup").splitlines()
    assert len(groups) >= 6 and all(line.endswith(container.id) for line in groups)
