"""Which images are checkpoints, whoever made them, and where the base image comes from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from shared import contract
from shared.contract import ImageFormat
from tests.e2e.engines import crio, podman, rewritten
from tests.e2e.node.counter import CREATED, DELETED, printed
from tests.e2e.node.cri import CriError
from tests.e2e.node.image import INDEX, MANIFEST, busybox_image, image_of
from tests.e2e.node.kubelet import RUNNING, Container, Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.program import Program
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import base_root
from tests.e2e.restoring import KEEPS, Images, Taken, have, local, resumed, with_daemon

_CHECKPOINTCTL = {
    "org.criu.checkpoint.container.name": "counter",
    "org.criu.checkpoint.engine.name": "containerd",
    "org.criu.checkpoint.pod.name": "own",
    "org.criu.checkpoint.pod.namespace": "default",
    "org.criu.checkpoint.rootfsImageName": "localhost:5000/own:1",
    "org.criu.checkpoint.runtime.name": "io.containerd.runc.v2",
}
_PODMAN = {
    "io.podman.annotations.checkpoint.name": "own",
    "io.podman.annotations.checkpoint.rootfsImageName": "localhost:5000/own:1",
    "io.podman.annotations.checkpoint.runtime.name": "runc",
}
_TRIGGER = {contract.TRIGGER_CONTAINERD: "counter"}


def made_by_buildah(registry: Registry, node: Node, taken: Taken, annotation: str) -> str:
    """The recipe of the Kubernetes blog (2022-12-05), run with the real tool."""
    shutil.copyfile(taken.archive, node.path("/tmp/checkpoint.tar"))
    name = f"made/buildah:{annotation.partition('.')[0]}"
    image = f"{registry.address}/{name}"
    script = f"""
        container=$(buildah from scratch)
        buildah add -q $container /tmp/checkpoint.tar /
        buildah config --annotation={annotation}=counter $container
        buildah commit -q $container {image}
        buildah push -q --tls-verify=false {image}
        buildah rm -a; buildah rmi -a; rm /tmp/checkpoint.tar
    """
    node.sh(script, timeout_s=120)
    return local(name)


def made_by_checkpointctl(registry: Registry, taken: Taken) -> str:
    registry.push(
        image_of([taken.archive.read_bytes()], {}, annotations=_CHECKPOINTCTL, compressed=True), "made/checkpointctl:1"
    )
    return local("made/checkpointctl:1")


def config_digest(node: Node, taken: Taken) -> str:
    """The id that the base image has on a node; it is there then, as engines without a reference need it."""
    have(node, taken.base)
    image = node.cri.image_status(taken.base)
    assert image is not None
    return image.id


def made_by_podman(registry: Registry, node: Node, taken: Taken) -> str:
    """``podman container checkpoint --create-image``."""
    layer = rewritten(taken, podman(config_digest(node, taken)))
    registry.push(image_of([layer], {}, annotations=_PODMAN, compressed=True), "made/podman:1")
    return local("made/podman:1")


def made_of_crio_archive(registry: Registry, node: Node, taken: Taken) -> str:
    layer = rewritten(taken, crio(config_digest(node, taken)))
    registry.push(image_of([layer], {}, annotations={contract.TRIGGER_CRIO: "counter"}), "made/crio:1")
    return local("made/crio:1")


def made_for_several_platforms(registry: Registry, taken: Taken) -> str:
    """An index of two, which alone has the annotation."""
    entries = []
    this = image_of([taken.archive.read_bytes()], {})
    architecture = this.config["architecture"]
    other = "arm64" if architecture == "amd64" else "amd64"
    for platform, image in ((other, image_of([b"\0" * 1024], {})), (architecture, this)):
        registry.push(image, f"made/several:{platform}")
        entries.append(
            {
                "mediaType": MANIFEST,
                "digest": image.digest,
                "size": len(image.manifest),
                "platform": {"os": "linux", "architecture": platform},
            }
        )
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries, "annotations": _TRIGGER}
    status, _, said = registry.request(
        "PUT", "/v2/made/several/manifests/1", json.dumps(index).encode(), {"Content-Type": INDEX}
    )
    assert status == 201, said
    return local("made/several:1")


def made_with_a_label(registry: Registry, taken: Taken) -> str:
    """Known by the label of its config only."""
    registry.push(image_of([taken.archive.read_bytes()], {"Labels": _TRIGGER}), "made/label:1")
    return local("made/label:1")


@pytest.fixture(scope="session")
def made(registry: Registry, node_17: Node, own_checkpoint: Taken) -> Callable[[str], str]:
    """Reference of the image that a tool made of ``own_checkpoint``; each is made once."""
    makers: dict[str, Callable[[], str]] = {
        "buildah for containerd": lambda: made_by_buildah(registry, node_17, own_checkpoint, next(iter(_TRIGGER))),
        "buildah for CRI-O": lambda: made_by_buildah(registry, node_17, own_checkpoint, contract.TRIGGER_CRIO),
        "checkpointctl": lambda: made_by_checkpointctl(registry, own_checkpoint),
        "podman": lambda: made_by_podman(registry, node_17, own_checkpoint),
        "CRI-O archive": lambda: made_of_crio_archive(registry, node_17, own_checkpoint),
        "several platforms": lambda: made_for_several_platforms(registry, own_checkpoint),
        "label": lambda: made_with_a_label(registry, own_checkpoint),
    }
    known: dict[str, str] = {}

    def of(tool: str) -> str:
        if tool not in known:
            known[tool] = makers[tool]()
        return known[tool]

    return of


def assert_resumed(container: Container, taken: Taken) -> None:
    container.wait_for(lambda each: len(printed(each)) > len(taken.logged) + 2, "new numbers")
    assert printed(container)[:4] == [1, 2, 3, 4]
    assert container.sh(f"cat {CREATED} /etc/changed") == "made\nchanged\n"
    assert container.exec("test", "-e", DELETED).exit_code == 1
    held = [int(line) for line in container.sh("cat /root/held").split()]
    assert held == list(range(1, len(held) + 1))


@pytest.mark.parametrize(
    "tool",
    [
        "buildah for containerd",
        "buildah for CRI-O",
        "checkpointctl",
        "podman",
        "CRI-O archive",
        "several platforms",
        "label",
    ],
)
def test_images_of_other_tools_resume(
    node: Node, daemon: Program, kubelet: Kubelet, own_checkpoint: Taken, made: Callable[[str], str], tool: str
) -> None:
    """Such an image has no command of its own, so the pod says the container's."""
    image = made(tool)
    have(node, image, own_checkpoint.base)
    container = kubelet.run_pod(own_checkpoint.pod("made")).run(replace(own_checkpoint.spec, image=image))
    assert_resumed(container, own_checkpoint)


@pytest.mark.parametrize(("image_format", "compression"), [("archive", "gzip"), ("layered", "zstd")])
def test_compressed_image_resumes(
    node: Node,
    daemon: Program,
    kubelet: Kubelet,
    own_checkpoint: Taken,
    images: Images,
    registry: Registry,
    image_format: ImageFormat,
    compression: str,
) -> None:
    image = images.of(own_checkpoint, image_format, compression)
    path = image.removeprefix("localhost:5000/").replace(":", "/manifests/")
    _, _, manifest = registry.request("GET", f"/v2/{path}", headers={"Accept": MANIFEST})
    assert json.loads(manifest)["layers"][-1]["mediaType"].endswith(f".tar+{compression}")
    have(node, image, own_checkpoint.base)
    container = kubelet.run_pod(own_checkpoint.pod("compressed")).run(own_checkpoint.restored(image))
    assert_resumed(container, own_checkpoint)


def test_ordinary_image_under_our_handler_starts(
    node: Node, daemon: Program, kubelet: Kubelet, own_checkpoint: Taken
) -> None:
    have(node, own_checkpoint.base)
    container = kubelet.run_pod(own_checkpoint.pod("fresh")).run(own_checkpoint.spec)
    container.wait_for(lambda each: len(printed(each)) > 2, "numbers")
    assert printed(container)[0] == 1
    assert container.sh("head -n 1 /root/held") == "1\n"


# ---- the base image ----


@contextmanager
def silent(registry: Registry) -> Iterator[None]:
    """Nothing answers at the registry's address."""
    registry.pause_service()
    try:
        yield
    finally:
        registry.serve()


@contextmanager
def tag_moved_on(registry: Registry, repository: str, tag: str) -> Iterator[None]:
    """The tag names another image meanwhile."""
    path = f"/v2/{repository}/manifests/{tag}"
    status, headers, manifest = registry.request("GET", path, headers={"Accept": MANIFEST})
    assert status == 200, manifest
    registry.push(busybox_image(base_root("containerd-1.7"), {"etc/other": b""}), f"{repository}:{tag}")
    try:
        yield
    finally:
        registry.request("PUT", path, manifest, {"Content-Type": headers["content-type"]})


def recorded_base(taken: Taken) -> str:
    """``REPOSITORY@DIGEST``, as the checkpoint names its base image."""
    recorded: str = taken.json("config.dump")["rootfsImageRef"]
    assert recorded.startswith("localhost:5000/own@sha256:")
    return recorded


def without_base(node: Node, taken: Taken) -> None:
    """Removes the base image from a node, under all its names."""
    have(node, taken.base)
    node.cri.remove_image(taken.base)
    assert node.cri.image_status(recorded_base(taken)) is None


def test_base_image_that_is_gone_is_pulled_by_digest(
    node: Node, daemon: Program, kubelet: Kubelet, own_checkpoint: Taken, images: Images, registry: Registry
) -> None:
    image = images.of(own_checkpoint, "archive")
    have(node, image)
    without_base(node, own_checkpoint)
    with tag_moved_on(registry, "own", "1"):
        container = resumed(kubelet, own_checkpoint, image, "image", "pulls")
        assert_resumed(container, own_checkpoint)
    assert container.exec("test", "-e", "/etc/other").exit_code == 1
    assert node.cri.image_status(recorded_base(own_checkpoint)) is not None


def test_base_image_that_cannot_be_had_is_the_reason_given_and_the_next_attempt_works(
    node: Node, daemon: Program, kubelet: Kubelet, own_checkpoint: Taken, images: Images, registry: Registry
) -> None:
    image = images.of(own_checkpoint, "archive")
    have(node, image)
    without_base(node, own_checkpoint)
    pod = kubelet.run_pod(own_checkpoint.pod("waits"))
    spec = own_checkpoint.restored(image)
    with silent(registry), pytest.raises(CriError) as failure:
        pod.run(spec)
    said = failure.value.details
    if node.flavour == "containerd-2.1":
        # There containerd pulls it, before it asks anybody: the error is its own.
        assert failure.value.method == "CreateContainer"
        assert "failed to pull checkpoint base image" in said
    else:
        assert failure.value.method == "StartContainer"
        assert said.count(recorded_base(own_checkpoint)) == 1
        assert said.count("BaseImageMissing: the checkpoint's base image is not to be had on this node") == 1
        assert "connection refused" in said
        assert "build the checkpoint image with --format layered" in said
        assert "rpc error" not in said
    container = pod.run(spec, attempt=len(pod.containers))
    assert_resumed(container, own_checkpoint)


def test_base_image_is_not_needed_once_the_root_was_prepared(
    node_17: Node, kubelet_of: Callable[[Node], Kubelet], own_checkpoint: Taken, images: Images, registry: Registry
) -> None:
    with_daemon(node_17, KEEPS)
    image = images.of(own_checkpoint, "archive")
    have(node_17, image, own_checkpoint.base)
    first = resumed(kubelet_of(node_17), own_checkpoint, image, "image", "first")
    assert_resumed(first, own_checkpoint)
    without_base(node_17, own_checkpoint)
    with silent(registry):
        node_17.sh(f"kill -9 {json.loads(first.info())['pid']}")
        first.wait_exit()
        assert_resumed(first.pod.restart(first), own_checkpoint)


# ---- containerd's own restore ----


def test_under_our_handler_containerds_own_restore_is_checked_by_us(
    node_21: Node, kubelet_of: Callable[[Node], Kubelet], own_checkpoint: Taken, images: Images
) -> None:
    with_daemon(node_21)
    image = images.of(own_checkpoint, "archive")
    have(node_21, image)
    pod = kubelet_of(node_21).run_pod(own_checkpoint.pod("ours"))
    with pytest.raises(CriError, match="UserDiffers"):
        pod.run(own_checkpoint.restored(image, run_as_user=1000))
    container = pod.run(own_checkpoint.restored(image), attempt=1)
    assert_resumed(container, own_checkpoint)
    assert node_21.path(f"/run/nri-restore/{container.id}/restored").exists()


def test_under_the_default_handler_containerds_own_restore_is_none_of_our_business(
    node_21: Node, kubelet_of: Callable[[Node], Kubelet], own_checkpoint: Taken, images: Images
) -> None:
    daemon = with_daemon(node_21)
    image = images.of(own_checkpoint, "archive")
    have(node_21, image)
    pod = kubelet_of(node_21).run_pod(own_checkpoint.pod("theirs", handler=""))
    container = pod.run(own_checkpoint.restored(image, run_as_user=1000))
    container.wait_for(lambda each: len(printed(each)) > len(own_checkpoint.logged) + 2, "new numbers")
    assert container.state == RUNNING
    assert not node_21.path(f"/run/nri-restore/{container.id}").exists()
    assert pod.spec.name not in daemon.output() and container.id[:12] not in daemon.output()
