"""No false refusal: a checkpoint of a pod of any ordinary shape resumes in a pod of the same shape, on a real node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.contract import HANDLER, POD_CHECKPOINT
from tests.e2e.node.counter import printed, take_checkpoint
from tests.e2e.node.cri import CriError
from tests.e2e.node.kubelet import Container, Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.node.waiting import wait_for
from tests.e2e.pod_shapes import SHAPES, Shape, clear_away, lay_out
from tests.e2e.refusal_bench import reference
from tests.e2e.restoring import Taken, have, with_daemon
from tests.e2e.spoilt_images import Archive, archive_image, delete_all, import_all
from tests.hostile.forgery import Forgery
from tests.hostile.users import as_user

EVERY = 6
"""Shapes from one to the next that containerd 1.7 restores too."""


def start(kubelet: Kubelet, shape: Shape, spec: ContainerSpec, **pod: Any) -> Container:
    """A pod of this shape; its main container last, after its init container and sidecar."""
    made = kubelet.run_pod(PodSpec(shape.name, **shape.pod, **pod))
    if shape.init:
        script = ("sh", "-c", "echo ready > /shared/state; i=0; while [ $((i+=1)) -lt 90 ]; do (:); done")
        assert made.run(ContainerSpec(spec.image, "init", script, mounts=spec.mounts)).wait_exit().exit_code == 0
    if shape.sidecar:
        script = ("sh", "-c", "echo beside > /shared/state; sleep 1000")
        made.run(ContainerSpec(spec.image, "side", script, mounts=spec.mounts))
    return made.run(spec)


def dump(kubelet: Kubelet, shape: Shape, image: str, folder: Path) -> tuple[bytes, int]:
    """Runs the shape under the node's ordinary handler: its checkpoint, and what it had printed by then at least."""
    spec = shape.spec(image)
    if shape.user is not None:
        spec = replace(spec, run_as_user=None, run_as_group=None)
    container = start(kubelet, shape, spec)
    container.wait_for(lambda each: len(printed(each)) > 1, "numbers")
    reached = printed(container)[-1]
    location = kubelet.node.path(take_checkpoint(kubelet.node, container))
    content = location.read_bytes()
    location.unlink()
    kubelet.remove_all()
    if shape.user is None:
        return content, reached
    archive = folder / f"{shape.name}.tar"
    archive.write_bytes(content)
    forgery = Forgery(archive)
    as_user(forgery, shape.user, shape.group)
    return forgery.tar(), reached


def restore(kubelet: Kubelet, shape: Shape, image: str, reached: int) -> None:
    """Raises CriError where it is refused."""
    annotations = {f"{POD_CHECKPOINT}.main": reference(shape.name)}
    container = start(kubelet, shape, shape.spec(image), handler=HANDLER, annotations=annotations)
    container.wait_for(lambda each: printed(each)[-1:] > [reached + 1], "the counter to go on")
    numbers = printed(container)
    assert numbers == list(range(1, len(numbers) + 1)), shape.name
    # Soon: a sidecar need not have come so far.
    wait_for(lambda: container.exec("sh", "-c", shape.sees).exit_code == 0, f"{shape.name}: {shape.sees}")


def outcome(nodes: Sequence[Node], shape: Shape, image: str, folder: Path) -> str:
    """Empty when the shape's checkpoint resumed in a pod of the same shape on every node; else why it was refused.

    The first node takes the checkpoint: containerd 1.7 cannot.
    """
    kubelets = [Kubelet(node) for node in nodes]
    try:
        archive, reached = dump(kubelets[0], shape, image, folder)
        for kubelet in kubelets:
            import_all(kubelet.node, {reference(shape.name): archive_image(Archive.read(archive))})
            restore(kubelet, shape, image, reached)
    except CriError as error:
        return f"{error.method}: {error.details}"
    finally:
        for kubelet in kubelets:
            kubelet.remove_all()
    return ""


@pytest.fixture
def laid_out(node_21: Node, node_17: Node) -> Iterator[list[Node]]:
    """The nodes with what the shapes mount, and none of it afterwards."""
    nodes = [node_21, node_17]
    kubelets = [Kubelet(node) for node in nodes]
    for node, kubelet in zip(nodes, kubelets, strict=True):
        lay_out(node)
        # Else the last pod to go takes the cgroup above all pods with it, just when another one is made in it.
        kubelet.run_pod(PodSpec("stays"))
    yield nodes
    for node, kubelet in zip(nodes, kubelets, strict=True):
        kubelet.remove_all()
        clear_away(node)


def test_no_ordinary_pod_is_refused(laid_out: list[Node], own_checkpoint: Taken, tmp_path: Path) -> None:
    for node in laid_out:
        with_daemon(node)
        have(node, own_checkpoint.base)

    def of(number: int) -> str:
        return outcome(laid_out[: 1 + (number % EVERY == 0)], SHAPES[number], own_checkpoint.base, tmp_path)

    with ThreadPoolExecutor(3) as threads:
        outcomes = threads.map(of, range(len(SHAPES)))
        refused = {shape.name: why for shape, why in zip(SHAPES, outcomes, strict=True) if why}
    for node in laid_out:
        delete_all(node, [reference(shape.name) for shape in SHAPES])
    assert len(SHAPES) >= 40
    assert refused == {}
