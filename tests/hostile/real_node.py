"""The attacks through the real path: image, pod under our handler, CreateContainer, StartContainer."""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from shared.contract import CHECKPOINT_MARKERS
from tests.e2e.node.cri import CriError
from tests.e2e.node.image import INDEX, MANIFEST, OciImage, image_of, tar_of
from tests.e2e.node.kubelet import Container, Kubelet, Pod
from tests.e2e.node.node import Node
from tests.e2e.node.specs import ContainerSpec
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import Taken
from tests.hostile.attack import AS_USER, Attack, Twin, Victim
from tests.hostile.in_process import forged
from tests.hostile.users import USER

BATCH = 60
OURS = "hostile.example/"
REASON = re.compile(r"\b([A-Z][A-Za-z]+[a-z]): ")
Kind = TypeVar("Kind", Attack, Twin)
_MARKER = sorted(CHECKPOINT_MARKERS)[0]


@dataclass(frozen=True)
class Tried:
    """How one attack ended."""

    attack: Attack | Twin
    details: str
    """The runtime's error; empty: the container runs."""
    criu_ran: bool
    seconds: float


@dataclass
class Battle:
    """A node with our daemon, and a pod of each victim under our handler."""

    kubelet: Kubelet
    victims: Mapping[Victim, Taken]
    pods: dict[Victim, Pod] = field(default_factory=dict)

    @property
    def node(self) -> Node:
        return self.kubelet.node

    def prepare(self, names: Sequence[Victim] = ("ordinary", "restricted", "mounted", "user")) -> None:
        for name in names:
            self.pods[name] = self.kubelet.run_pod(self._taken(name).pod(f"battle-{name}"))

    def _taken(self, victim: Victim) -> Taken:
        return self.victims[AS_USER.get(victim, victim)]

    def spec(self, each: Attack | Twin, image: str, name: str) -> ContainerSpec:
        spec = self._taken(each.victim).restored(image)
        if each.victim in AS_USER:
            spec = replace(spec, run_as_user=USER, run_as_group=USER)
        more = each.pod if isinstance(each, Twin) else {}
        return replace(spec, name=name, **more)

    def images(self, attacks: Sequence[Attack | Twin]) -> Iterator[tuple[Attack | Twin, str]]:
        """Imports the forged images in batches; gives each attack with its image's name."""
        for start in range(0, len(attacks), BATCH):
            batch = attacks[start : start + BATCH]
            made = {_name(attack): self.image(attack) for attack in batch}
            archive = archive_of(made)
            self.node.run(["ctr", "-n", "k8s.io", "images", "import", "-"], stdin=archive, timeout_s=180)
            for name in made:
                wait_for(lambda name=name: self.node.cri.image_status(name) is not None, f"the CRI to know {name}")  # type: ignore[misc]
            yield from ((attack, _name(attack)) for attack in batch)

    def image(self, attack: Attack | Twin) -> OciImage:
        taken = self._taken(attack.victim)
        forgery = forged(attack, taken.archive)
        command = list(taken.spec.command)
        notes = {_MARKER: "counter", **forgery.annotations}
        return image_of([forgery.tar()], {"Cmd": command, "Env": ["PATH=/bin:/usr/bin"]}, annotations=notes)

    def try_out(self, attack: Attack | Twin, image: str, name: str) -> tuple[Tried, Container | None]:
        """One container; it is left running when nothing refused it."""
        began = time.monotonic()
        pod = self.pods[attack.victim]
        try:
            container = pod.create(self.spec(attack, image, name))
        except CriError as error:
            return Tried(attack, error.details, False, time.monotonic() - began), None
        try:
            container.start()
        except CriError as error:
            ran = self.node.path(f"/run/nri-restore/{container.id}/restoring").exists()
            self.end(container)
            return Tried(attack, error.details, ran, time.monotonic() - began), None
        return Tried(attack, "", True, time.monotonic() - began), container

    def end(self, container: Container) -> None:
        container.stop(0)
        container.remove()
        container.pod.containers.remove(container)


def _name(attack: Attack | Twin) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", attack.name.lower()).strip("-")[:60].strip("-")
    return f"{OURS}{attack.victim}/{words}-{zlib.crc32(attack.name.encode())}:1"


def archive_of(images: Mapping[str, OciImage]) -> bytes:
    """One OCI archive with all of them, for one ``ctr images import``."""
    entries = [
        {
            "mediaType": MANIFEST,
            "digest": image.digest,
            "size": len(image.manifest),
            "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
        }
        for name, image in images.items()
    ]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    for image in images.values():
        for digest, blob in {**image.blobs, image.digest: image.manifest}.items():
            files[f"blobs/{digest.replace(':', '/')}"] = blob
    return tar_of(files)


def refused_as(tried: Tried, reason: str) -> bool:
    return f"{reason}: " in tried.details and not tried.criu_ran


def by_image(each: Iterable[Kind]) -> list[Kind]:
    return [one for one in each if one.route == "image"]


def by_archive(each: Iterable[Kind]) -> list[Kind]:
    return [one for one in each if one.route == "archive"]
