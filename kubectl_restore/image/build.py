"""Packages a checkpoint as an OCI image: reads metadata, finds the base image, writes layers, config and manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from typing import Any

from kubectl_restore.image.base import AccessTo, is_archive_checkpoint, is_layered_checkpoint, named_base, recorded_base
from kubectl_restore.image.config import image_config, manifest_annotations
from kubectl_restore.image.destination import Destination, Written
from kubectl_restore.image.images import Image
from kubectl_restore.image.layers import Layer, archive_layer, checkpoint_layer, rootfs_layer
from kubectl_restore.image.measure import Ahead
from kubectl_restore.image.source import FileRange
from shared import oci
from shared.archive import CheckpointFiles, open_checkpoint
from shared.compression import Compression
from shared.contract import ImageFormat
from shared.errors import Refused, RestoreError
from shared.metadata import Checkpoint, read_checkpoint

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What to build; ``image_format`` None means layered when the base image can be had, else archive."""

    checkpoint: Path
    image_format: ImageFormat | None
    base: str | None
    """``REF``, ``oci:DIR[:NAME]`` or ``oci-archive:FILE[:NAME]``; None: what the checkpoint recorded."""
    to_disk: bool = False
    """Whether the destination is on this machine, where reading the archive twice at a time costs nothing."""
    compression: Compression | None = None
    """Of the layers made of the checkpoint; None: as they are in it."""
    ahead: Ahead | None = None
    """Of the whole archive, when its digest is being worked out already."""


@dataclass(frozen=True)
class Built:
    digest: str
    size: int
    """Bytes of all blobs, the manifest included."""
    image_format: ImageFormat
    base_digest: str | None


@dataclass(frozen=True)
class Prepared:
    """A sound checkpoint, and what it is to be packed on."""

    content: Content
    image_format: ImageFormat
    base: Image | None
    platform: oci.Platform
    """The dumped process's."""

    @property
    def below(self) -> list[tuple[oci.Descriptor, str]]:
        """The base image's layers that the new image begins with, each with its diff ID."""
        if not self.base or self.image_format == "archive":
            return []
        # The base may be a layered checkpoint itself: its memory, the last layer, must not travel on.
        kept = len(self.base.manifest.layers) - is_layered_checkpoint(self.base)
        return list(zip(self.base.manifest.layers[:kept], self.base.diff_ids, strict=False))

    def layers(self) -> list[Layer]:
        """What the checkpoint adds."""
        if self.image_format == "archive":
            return [self.content.whole]
        return [layer for layer in (self.content.rootfs(), self.content.images) if layer]


def build(order: Order, access: AccessTo, open_destination: Callable[[Image | None], Destination], warn: Warn) -> Built:
    """Builds an image and writes it to the destination, which is opened once the checkpoint is known to be sound.

    Raises CheckpointInvalid for a checkpoint that is not sound; nothing has been written then.
    """
    with prepared(order, access, warn) as ready, open_destination(ready.base) as destination:
        return _pack(ready, destination)


@contextmanager
def prepared(order: Order, access: AccessTo, warn: Warn) -> Iterator[Prepared]:
    """Reads and checks everything that a build needs; writes nothing."""
    with open_checkpoint(order.checkpoint) as files, ExitStack() as stack:
        checkpoint = read_checkpoint(files)
        content = Content.of(files, checkpoint, order.compression)
        plain = files.compression is Compression.NONE and order.compression in (None, Compression.NONE)
        if order.to_disk and content.file and plain:
            content = content.hashed_ahead(order, stack)
        # Loading what reads CRIU's images takes long enough for the hash to be well on its way.
        from kubectl_restore.image.soundness import check_dump

        platform = oci.Platform("linux", check_dump(files))
        image_format, base = _decide(order, checkpoint, platform, access, warn)
        if base and base.platform.architecture != platform.architecture:
            raise Refused(
                "BaseMismatch",
                f"{base.name} is for {base.platform}, but the checkpoint is of a {platform} process; "
                "name the right image with --base",
            )
        yield Prepared(content, image_format, base, platform)


def _decide(
    order: Order, checkpoint: Checkpoint, platform: oci.Platform, access: AccessTo, warn: Warn
) -> tuple[ImageFormat, Image | None]:
    if order.base:
        base, doubts = named_base(order.base, checkpoint.base, platform, access)
        for doubt in doubts:
            warn(doubt)
    else:
        try:
            base = recorded_base(checkpoint.base, platform, access)
        except RestoreError as error:
            return _without_base(order, str(error), warn), None
    if order.image_format == "archive" or not is_archive_checkpoint(base):
        return order.image_format or "layered", base
    why = f"its base image {base.name} is itself a checkpoint in archive format, which has no root to build on"
    if order.image_format == "layered":
        raise Refused("BaseIsCheckpoint", f"cannot build the layered format: {why}; use --format archive")
    warn(f"building the archive format: {why}")
    return "archive", base


def _without_base(order: Order, why: str, warn: Warn) -> ImageFormat:
    remedy = "name the base image with --base (a reference, oci:DIR or oci-archive:FILE)"
    if order.image_format == "layered":
        raise RestoreError(
            "BaseMissing", f"the layered format needs the base image's layers: {why}; {remedy}, or use --format archive"
        )
    start = "building the archive format, and its" if order.image_format is None else "the image's"
    warn(
        f"{start} config has the Env and WorkingDir of the process, and lacks the base image's Volumes, StopSignal "
        f"and Labels: {why}; {remedy}"
    )
    return "archive"


@dataclass(frozen=True)
class Content:
    """A checkpoint as layers; ``file`` is the archive, None for an unpacked directory."""

    files: CheckpointFiles
    checkpoint: Checkpoint
    file: FileRange | None
    created: datetime
    """When the container was frozen; what no engine leaves out but a crafted archive may: the file's own time."""
    whole: Layer
    images: Layer
    compression: Compression | None

    @classmethod
    def of(cls, files: CheckpointFiles, checkpoint: Checkpoint, compression: Compression | None) -> Content:
        status = files.path.stat()
        created = checkpoint.checkpointed_at or datetime.fromtimestamp(int(status.st_mtime), UTC)
        file = FileRange.whole(files.path) if S_ISREG(status.st_mode) else None
        whole = archive_layer(files, created).compressed(compression)
        images = checkpoint_layer(files, checkpoint, created).compressed(compression)
        return cls(files, checkpoint, file, created, whole, images, compression)

    def hashed_ahead(self, order: Order, stack: ExitStack) -> Content:
        """Begins with the digest of the large layer of the format that is expected; ``stack`` ends it."""
        if order.image_format == "archive":
            ahead = order.ahead or stack.enter_context(Ahead(self.whole.source))
            return replace(self, whole=replace(self.whole, ahead=ahead))
        return replace(self, images=replace(self.images, ahead=stack.enter_context(Ahead(self.images.source))))

    @property
    def seekable(self) -> bool:
        """Whether reading from the middle of a layer is cheap: a compressed archive is decompressed from its start."""
        return self.files.compression is Compression.NONE

    def rootfs(self) -> Layer | None:
        layer = rootfs_layer(self.files, self.checkpoint, self.created)
        return layer and layer.compressed(self.compression)


def _pack(ready: Prepared, destination: Destination) -> Built:
    content, base = ready.content, ready.base
    written = []
    for descriptor, diff_id in ready.below:
        assert base
        destination.copy(descriptor, base)
        written.append(Written(descriptor.as_oci(), diff_id))
    history = _history(base, len(written)) if base and ready.image_format == "layered" else []
    layers = ready.layers()
    written += [destination.write(layer) for layer in layers]
    if content.file:
        content.file.check_unchanged()
    base_digest = base.manifest_digest if base else None
    config = oci.encode(
        image_config(
            content.checkpoint,
            ready.image_format,
            base=base.config if base else None,
            platform=base.platform if base else ready.platform,
            created=content.created,
            diff_ids=[layer.diff_id for layer in written],
            created_by=[] if history is None else [layer.created_by for layer in layers],
            kept_history=history or (),
        )
    )
    descriptor = oci.Descriptor(oci.CONFIG, oci.digest_of(config), len(config))
    annotations = manifest_annotations(
        content.checkpoint, ready.image_format, created=content.created, base_digest=base_digest
    )
    descriptors = tuple(layer.descriptor for layer in written)
    manifest = oci.encode(oci.Manifest(descriptor, descriptors, annotations).as_json())
    destination.finish(config, manifest)
    size = len(manifest) + len(config) + sum(layer.size for layer in descriptors)
    return Built(oci.digest_of(manifest), size, ready.image_format, base_digest)


def _history(base: Image, layers: int) -> list[dict[str, Any]] | None:
    """The base's history for its first ``layers`` layers; None when it does not match them, for then no line would."""
    listed = base.config.get("history")
    if not isinstance(listed, list) or not all(isinstance(line, dict) for line in listed):
        return None
    kept: list[dict[str, Any]] = []
    for line in listed:
        if line.get("empty_layer") is True or layers > 0:
            kept.append(line)
        layers -= line.get("empty_layer") is not True
    return kept if layers <= 0 else None
