"""Checkpoint images in the runtime's store: recognising one, and a read-only view of its files.

A view is mounted once per image digest, shared by every container restored from it, and stays as long as one of their
plans names it. Nothing is copied: CRIU reads its images in place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nri_plugin.containerd import containerd_pb2 as api
from nri_plugin.containerd.client import Containerd, NotFound
from nri_plugin.restore import mounting
from nri_plugin.restore.plan import plans_in
from shared import contract, oci
from shared.errors import CheckpointInvalid, Refused, Unavailable

LEASE_PREFIX = "nri-restore-"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
"""``uname -m`` to GOARCH where they differ."""
HOST_PLATFORM = oci.Platform("linux", MACHINES.get(os.uname().machine, os.uname().machine))


@dataclass(frozen=True)
class StoredImage:
    """An image the runtime has: what it is, by digest."""

    digest: str
    """Of the platform's manifest."""
    target: str
    """Of what the image name points at: the manifest or an index with it."""
    config_digest: str
    diff_ids: tuple[str, ...]
    annotations: Mapping[str, str]
    """Of index and manifest, and the config's labels."""
    layer_bytes: int = 0
    """Of all layers, as they are in the registry."""

    @property
    def chain_id(self) -> str:
        return oci.chain_id(self.diff_ids)

    @property
    def is_checkpoint(self) -> bool:
        return any(marker in self.annotations for marker in contract.CHECKPOINT_MARKERS)

    @property
    def layered(self) -> bool:
        return self.annotations.get(contract.IMAGE_FORMAT) == "layered"

    @property
    def lease(self) -> str:
        return LEASE_PREFIX + self.digest.removeprefix("sha256:")


def stored_image(containerd: Containerd, target: api.Descriptor) -> StoredImage:
    """Reads what ``target`` is; raises NotFound, RestoreError("ManifestInvalid") or Refused("PlatformMissing")."""
    digest = target.digest
    document = oci.parse_document(containerd.read_content(digest))
    annotations = dict(document.annotations)
    if isinstance(document, oci.Index):
        chosen = document.choose(HOST_PLATFORM)
        if chosen is None:
            raise Refused("PlatformMissing", f"the image index {digest} has no manifest for {HOST_PLATFORM}")
        digest = chosen.digest
        document = oci.parse_document(containerd.read_content(digest))
        if isinstance(document, oci.Index):
            raise Refused("PlatformMissing", f"the image index {target.digest} holds another index, not a manifest")
        annotations |= document.annotations
    config = containerd.read_json(document.config.digest)
    try:
        diff_ids = tuple(str(entry) for entry in config["rootfs"]["diff_ids"])
    except (KeyError, TypeError) as error:
        raise Unavailable(
            "ImageDamaged", f"the image config {document.config.digest} has no rootfs.diff_ids"
        ) from error
    settings = config.get("config")
    labels = settings.get("Labels") if isinstance(settings, dict) else None
    found = {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}
    size = sum(layer.size for layer in document.layers)
    return StoredImage(digest, target.digest, document.config.digest, diff_ids, {**found, **annotations}, size)


def find_image(containerd: Containerd, name: str) -> StoredImage:
    """The image called ``name``: as the runtime spells it, else in full form; raises NotFound."""
    try:
        target = containerd.image_target(name)
    except NotFound:
        if name.startswith("sha256:") or (full := str(oci.parse_reference(name))) == name:
            raise
        target = containerd.image_target(full)
    return stored_image(containerd, target)


class Views:
    """Read-only mounts of checkpoint images below ``<plans>/views``. Callers serialise by digest."""

    def __init__(self, containerd: Containerd, plans: Path) -> None:
        self.containerd = containerd
        self.plans = plans
        self.directory = plans / "views"

    def path(self, digest: str) -> Path:
        return self.directory / digest.removeprefix("sha256:")

    def root(self, image: StoredImage) -> Path:
        """Where the checkpoint's files (config.dump, checkpoint/ …) are once ``mount`` has been called."""
        path = self.path(image.digest) / "image"
        return path / contract.LAYERED_DIR if image.layered else path

    def mount(self, image: StoredImage) -> Path:
        """Mounts the view unless it is; returns ``root``. The lease comes first: an unleased view is collected."""
        target = self.path(image.digest) / "image"
        if target not in mounting.mounts_below(target):  # a bind on its own disk is no is_mount()
            self.containerd.create_lease(image.lease, {"nri-restore/digest": image.digest})
            self.containerd.hold(image.lease, image.target, "content")
            key = self._key(image.digest)
            try:
                mounts = self.containerd.view(key, image.chain_id, lease=image.lease)
            except NotFound as error:
                raise Unavailable(
                    "ImageNotUnpacked",
                    "the node has the checkpoint image but never unpacked it; pull it again on the node",
                ) from error
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            _mount_view(mounts, target, topmost=image.layered)
        return self.root(image)

    def release(self, digest: str) -> bool:
        """Unmounts the view and removes its snapshot, unless a plan still names it; whether it is gone."""
        if digest in self.in_use():
            return False
        if self.path(digest).exists():
            mounting.delete_tree(self.path(digest))
            self.containerd.remove_snapshot(self._key(digest))
        return True

    def in_use(self) -> frozenset[str]:
        return frozenset(image for plan in plans_in(self.plans) if (image := plan.read("image")))

    def held(self) -> frozenset[str]:
        """Digests that a plan names or a view is mounted of: their leases are needed."""
        return self.in_use() | set(self.mounted())

    def mounted(self) -> Sequence[str]:
        """Digests of every view there is."""
        try:
            return [f"sha256:{entry.name}" for entry in self.directory.iterdir()]
        except FileNotFoundError:
            return []

    @staticmethod
    def _key(digest: str) -> str:
        return f"{LEASE_PREFIX}view-{digest.removeprefix('sha256:')}"


def _mount_view(mounts: Sequence[api.Mount], target: Path, *, topmost: bool) -> None:
    """Mounts a View; of a layered image only the topmost layer, which alone holds the checkpoint."""
    if len(mounts) != 1:
        raise Unavailable("SnapshotterUnsupported", f"the snapshotter gave {len(mounts)} mounts for a view, not one")
    (only,) = mounts
    options = dict(option.partition("=")[::2] for option in only.options)
    if only.type == "bind":
        mounting.bind(Path(only.source), target)
    elif only.type == "overlay" and topmost:
        mounting.bind(Path(options["lowerdir"].split(":")[0]), target)
    elif only.type == "overlay":
        data = ",".join(option for option in only.options if option != "ro")
        if len(data) > mounting.OPTIONS_LIMIT_BYTES:
            raise CheckpointInvalid("TooManyLayers", "the checkpoint image has too many layers; build it with one")
        mounting.mount("overlay", target, "overlay", mounting.INERT, data)
    else:
        raise Unavailable("SnapshotterUnsupported", f"views of type {only.type} cannot be mounted")
