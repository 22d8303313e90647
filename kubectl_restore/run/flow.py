"""From a running pod to its resumed copy: checkpoint, fetch, push, resume, and delete the source when that is wanted.

What was made is undone when a later step fails or is interrupted: the copy, what was pushed, the transfer pod, the
download. The archive on the node is out of reach: the kubelet has no call to delete one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kubectl_restore.image.access import Access
from kubectl_restore.image.build import Order, build
from kubectl_restore.image.images import Image
from kubectl_restore.image.registry_images import RegistryImages
from kubectl_restore.kube.connection import path_of
from kubectl_restore.manifest.pod import Wanted, fit
from kubectl_restore.run.copy_pod import await_ready, created
from kubectl_restore.run.pushed import Recorded, Tag, taken_back
from kubectl_restore.source.names import NodeFile
from kubectl_restore.source.opening import Fetching, checkpoint, opened
from shared.archive import open_checkpoint
from shared.criu.dump import read_dump
from shared.metadata import read_checkpoint

if TYPE_CHECKING:
    from kubectl_restore.kube.connection import Connection
    from kubectl_restore.kube.kubelet import Taken
    from kubectl_restore.kube.pods import Target
    from kubectl_restore.run.phases import Phases
    from shared.compression import Compression
    from shared.oci import Reference

Object = dict[str, Any]
PHASES: Final = ("checkpoint", "fetch", "push", "resume")
DELETE: Final = "delete"
DIRECTORY: Final = "/var/lib/kubelet/checkpoints"
"""Where a kubelet puts them (its --root-dir may be another)."""


@dataclass(frozen=True)
class Move:
    source: Target
    owned: bool
    """Whether a controller made the source."""
    copy: Object
    """The pod to create, before it is fitted to the checkpoint."""
    reference: Reference
    image: str
    """What the nodes call it."""
    base: str
    compression: Compression | None
    access: Callable[[str], Access]
    """How a registry is reached, by its host."""
    runtime_class: str
    ready_s: float
    delete_source: bool
    sign: Callable[[str, Access], None] | None = None
    """Called with the pushed image by digest."""

    @property
    def copy_name(self) -> str:
        return str(self.copy["metadata"]["name"])

    @property
    def copy_called(self) -> str:
        return f"{self.source.namespace}/{self.copy_name}"


def move(wanted: Move, connection: Connection, fetching: Fetching, phases: Phases) -> str:
    """Returns the copy's node; ``fetching`` reports to ``phases`` as well."""
    # Before anything is made: a registry that cannot be reached or wants a login is said at once.
    tag = Tag.of(wanted.reference, wanted.access(wanted.reference.registry))
    taken = _checkpoint(wanted, connection, fetching, phases)
    destinations: list[Recorded] = []
    with taken_back(tag, lambda: destinations[0].digest if destinations else "", phases.note):
        _push(wanted, NodeFile(taken.target.node, taken.path), destinations, fetching, phases)
        with created(connection, wanted.copy, phases.note), phases.phase("resume", f"pod {wanted.copy_called}"):
            node = await_ready(connection, wanted.copy_name, wanted.ready_s, phases.now)
    if wanted.delete_source:
        with phases.phase(DELETE, f"pod {wanted.source.namespace}/{wanted.source.pod}"):
            body = {"preconditions": {"uid": wanted.source.uid}}
            connection.call("DELETE", path_of("pods", wanted.source.namespace, wanted.source.pod), body)
        if wanted.owned:
            phases.note(f"the controller of pod {wanted.source.pod} may make another one")
    return node


def _checkpoint(wanted: Move, connection: Connection, fetching: Fetching, phases: Phases) -> Taken:
    source = wanted.source
    try:
        with phases.phase("checkpoint", source.called):
            taken = checkpoint(connection, source.pod, source.container, fetching)
    except (KeyboardInterrupt, SystemExit):
        phases.note(f"the kubelet of node {source.node} may finish the checkpoint all the same, in {DIRECTORY}")
        raise
    phases.note(f"the archive stays on its node: node/{source.node}:{taken.path}")
    return taken


def _push(wanted: Move, place: NodeFile, destinations: list[Recorded], fetching: Fetching, phases: Phases) -> None:
    """Fits the copy to the checkpoint as well, which is on this machine only meanwhile."""

    def destination(base: Image | None) -> Recorded:
        images = base.images if base and isinstance(base.images, RegistryImages) else None
        access = wanted.access(wanted.reference.registry)
        destinations.append(Recorded(wanted.reference, access, phases, base=images))
        return destinations[-1]

    with ExitStack() as files:
        with phases.phase("fetch", f"{place.name} of node {place.node}"):
            archive = files.enter_context(opened(place, fetching))
        with phases.phase("push", f"to {wanted.reference}"):
            order = Order(archive.path, None, wanted.base or None, compression=wanted.compression)
            built = build(order, wanted.access, destination, phases.note)
            if wanted.sign:
                reference = wanted.reference
                wanted.sign(f"{reference.name}@{built.digest}", wanted.access(reference.registry))
        content = files.enter_context(open_checkpoint(archive.path))
        fitted = Wanted(read_checkpoint(content), read_dump(content), wanted.image, runtime_class=wanted.runtime_class)
        fit(wanted.copy, wanted.source.container, fitted, known=True)
    for each in wanted.copy["spec"]["containers"]:
        if each["name"] != wanted.source.container:
            phases.note(f"container {each['name']} starts afresh: it is not in this checkpoint")
