"""An image that is on the node is restored for pods that could pull it, and for no others."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.contract import HANDLER, POD_CHECKPOINT, TRIGGER_CONTAINERD
from tests.e2e.cluster import RealNodes
from tests.e2e.faults import counts_on
from tests.e2e.joined import CLUSTER, LOGIN, Joined, Private, joined_node, private_registry, pull_secret
from tests.e2e.node.counter import printed
from tests.e2e.node.image import OciImage, busybox_image, image_of
from tests.e2e.node.kubelet import Kubelet
from tests.e2e.node.network import Network
from tests.e2e.node.node import DAEMON_CONFIGURATION, DAEMON_LOG, Node
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import Flavour, base_root
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import KEEPS_NOTHING, Taken, checkpointed, have

NUMBERS = itertools.count()
RESTORED = "the container resumed from its checkpoint"
RECORDS = "/var/lib/nri-restore/pulls"


@pytest.fixture
def joined(network: Network, node: Node) -> Iterator[Joined]:
    with joined_node(network, node) as joined:
        joined.api.create("Namespace", "other")
        yield joined


@pytest.fixture
def private(registry: Registry, node: Node, node_21: Node, joined: Joined) -> Iterator[Private]:
    """With a pull secret for it in two namespaces."""
    with private_registry(registry, node, node_21) as private:
        data = {".dockerconfigjson": pull_secret(private.address)}
        for namespace in ("default", "other"):
            joined.api.create("Secret", "pull", namespace, type="kubernetes.io/dockerconfigjson", data=data)
        yield private


@pytest.fixture
def taken(node_of: Callable[[Flavour], Node], busybox: str, checkpoints: Path) -> Iterator[Taken]:
    """A checkpoint that no test before has had, on a base image that everybody gets."""
    yield take(node_of("containerd-2.1"), busybox, checkpoints)


def take(node: Node, base: str, checkpoints: Path) -> Taken:
    name = f"rights-{next(NUMBERS)}"
    script = f": {name}; i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"
    kubelet = Kubelet(node)
    spec = ContainerSpec(base, "counter", ("sh", "-c", script))
    return checkpointed(kubelet, checkpoints, PodSpec(name), spec, lambda each: len(printed(each)) > 3)


def image_for(taken: Taken) -> OciImage:
    """Marked where containerd's own restore does not look, which pulls base images by itself and without a login."""
    config = {"Cmd": [*taken.spec.command, *taken.spec.args], "Labels": {TRIGGER_CONTAINERD: "counter"}}
    return image_of([taken.archive.read_bytes()], config)


def outcome(joined: Joined, taken: Taken, image: str, *, secret: bool, **how: Any) -> str:
    """What the daemon says of a new pod that restores ``image``, and that goes on where it does."""
    with pod_of(joined, taken, image, secret=secret, **how) as said:
        return said


def kept(joined: Joined, taken: Taken, image: str) -> AbstractContextManager[str]:
    """A pod with the secret that goes on meanwhile."""
    return pod_of(joined, taken, image, secret=True, by_image=True)


@contextmanager
def pod_of(
    joined: Joined, taken: Taken, image: str, *, secret: bool, by_image: bool = False, namespace: str = "default"
) -> Iterator[str]:
    name = f"pod-{next(NUMBERS)}"
    have(joined.node, taken.base)
    container: dict[str, Any] = {"name": "counter", "image": image if by_image else taken.base}
    if not by_image:
        container["command"] = list(taken.spec.command)
    metadata = {"name": name, "annotations": {} if by_image else {POD_CHECKPOINT: image}}
    secrets = [{"name": "pull"}] if secret else []
    wanted = {"nodeName": "old", "runtimeClassName": HANDLER, "imagePullSecrets": secrets}
    joined.api.run_pod({"metadata": metadata, "spec": {**wanted, "containers": [container]}}, namespace)
    wait_for(lambda: bool(joined.events(name)), f"the event on {name}")
    backend = joined.api.backend
    assert isinstance(backend, RealNodes)
    [(reason, message)] = joined.events(name)[:1]
    if reason == "Restored":
        counts_on(backend.container(name, namespace=namespace))
    yield message
    backend.pod_deleted(joined.api.pod(name, namespace), 0)
    wait_for(lambda: name not in str(joined.api.pods(namespace)), "the pod to go")


def configured(joined: Joined, policy: str) -> None:
    """The daemon goes by this policy from now on."""
    log = joined.node.path(DAEMON_LOG)
    before = log.read_text().count("was read again")
    joined.node.path(DAEMON_CONFIGURATION).write_text(KEEPS_NOTHING + CLUSTER + f"[policy]\n{policy}\n")
    assert joined.node.daemon
    joined.node.daemon.signal(signal.SIGHUP)
    wait_for(lambda: log.read_text().count("was read again") > before, "the configuration to be read again")


def test_checkpoint_that_another_tenant_pulled_is_for_who_could_pull_it(
    joined: Joined, private: Private, registry: Registry, taken: Taken
) -> None:
    registry.push(image_for(taken), f"rights/{taken.name}:1")
    image = f"{private.address}/rights/{taken.name}:1"
    joined.node.cri.pull_image(image, auth=LOGIN)  # by the kubelet, for a pod of somebody's

    said = outcome(joined, taken, image, secret=False)
    assert said.startswith(f"PullNotAllowed: the checkpoint image {image} is on this node, but nothing shows that")
    assert "no basic auth credentials (nri-restore asked without a login" in said
    assert "give the pod an imagePullSecret for that registry" in said
    assert outcome(joined, taken, image, secret=True) == RESTORED
    # By another of its names, or by its id.
    by_id = joined.node.cri.image_status(image)
    assert by_id
    for name in (by_id.id, *by_id.repo_digests):
        assert outcome(joined, taken, name, secret=False).startswith("PullNotAllowed: ")

    records = joined.node.path(RECORDS)
    assert records.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in records.iterdir()} == {0o600}
    assert LOGIN[1].encode() not in b"".join(each.name.encode() + each.read_bytes() for each in records.iterdir())

    # Remembered: also by a daemon that has only just begun, and where the registry is away.
    private.stop()
    joined.node.stop_daemon()
    joined.node.start_daemon()
    assert outcome(joined, taken, image, secret=True) == RESTORED
    assert "connection refused" in outcome(joined, taken, image, secret=False)
    assert outcome(joined, taken, image, secret=True, namespace="other").startswith("PullNotAllowed: ")
    configured(joined, 'node_images = "everyone"')
    assert outcome(joined, taken, image, secret=False) == RESTORED
    configured(joined, "")
    assert outcome(joined, taken, image, secret=False).startswith("PullNotAllowed: ")


def test_checkpoint_that_we_pulled_for_one_pod_is_not_for_every_other(
    joined: Joined, private: Private, registry: Registry, taken: Taken
) -> None:
    registry.push(image_for(taken), f"rights/{taken.name}:1")
    image = f"{private.address}/rights/{taken.name}:1"
    assert outcome(joined, taken, image, secret=True) == RESTORED
    assert outcome(joined, taken, image, secret=False).startswith("PullNotAllowed: ")
    private.stop()
    assert outcome(joined, taken, image, secret=True) == RESTORED


def test_registry_is_asked_once_for_an_image_that_everybody_gets(
    joined: Joined, registry: Registry, taken: Taken
) -> None:
    image = registry.push(image_for(taken), f"rights/{taken.name}:1")
    have(joined.node, image)
    assert outcome(joined, taken, image, secret=False) == RESTORED
    registry.pause_service()
    try:
        assert outcome(joined, taken, image, secret=False) == RESTORED
    finally:
        registry.serve()


def test_base_image_that_another_tenant_pulled_is_for_who_could_pull_it(
    joined: Joined, private: Private, registry: Registry, node_21: Node, checkpoints: Path
) -> None:
    content = busybox_image(base_root("containerd-1.7"), {"etc/private": str(next(NUMBERS)).encode()})
    base = registry.push(content, f"rights/base-{next(NUMBERS)}:1").replace(registry.address, private.address)
    for node in (node_21, joined.node):
        node.cri.pull_image(base, auth=LOGIN)
    taken = take(node_21, base, checkpoints)
    image = registry.push(image_for(taken), f"rights/{taken.name}:1")

    said = outcome(joined, taken, image, secret=False, by_image=True)
    assert said.startswith("PullNotAllowed: the checkpoint's base image "), said
    # What is made of it is no more for everybody than the image itself, which may be gone by then.
    with kept(joined, taken, image):
        said = outcome(joined, taken, image, secret=False, by_image=True)
        assert said.startswith("PullNotAllowed: the checkpoint's base image "), said
        joined.node.cri.remove_image(base)
        gone = replace(taken, base=image)  # so that nothing gets it again
        said = outcome(joined, gone, image, secret=False, by_image=True)
        assert said.startswith("PullNotAllowed: the checkpoint's base image "), said
        private.stop()
        assert outcome(joined, gone, image, secret=True, by_image=True) == RESTORED


def test_image_that_was_imported_is_for_everyone_unless_the_policy_verifies_it(joined: Joined, taken: Taken) -> None:
    image = joined.node.import_image(image_for(taken), f"nri-restore.test/{taken.name}:1")
    assert outcome(joined, taken, image, secret=False) == RESTORED
    configured(joined, 'node_images = "verify"')
    assert outcome(joined, taken, image, secret=False).startswith("PullNotAllowed: ")


def test_own_image_of_a_pod_is_verified_where_the_policy_says_so(
    joined: Joined, private: Private, registry: Registry, taken: Taken
) -> None:
    """By default that is the kubelet's, which has it pulled without asking here, as older ones do."""
    registry.push(image_for(taken), f"rights/{taken.name}:1")
    image = f"{private.address}/rights/{taken.name}:1"
    joined.node.cri.pull_image(image, auth=LOGIN)
    assert outcome(joined, taken, image, secret=False, by_image=True) == RESTORED
    configured(joined, 'node_images = "verify"')
    assert outcome(joined, taken, image, secret=False, by_image=True).startswith("PullNotAllowed: ")
    assert outcome(joined, taken, image, secret=True, by_image=True) == RESTORED
