"""The layers that a checkpoint adds to an image, as streams over the archive; nothing is unpacked.

Sources: image-spec layer.md (whiteouts), containerd ``archive/tar.go`` (how a runtime applies them), CRI-O and Podman
``deleted.files``, contract.LAYERED_DIR.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from kubectl_restore.image.compressing import Compressing, Decompressing
from kubectl_restore.image.measure import Ahead, Measurement
from kubectl_restore.image.source import FileRange, Joined, Literal, Opened, Source, Stream
from shared import contract, oci
from shared.archive import CheckpointFiles
from shared.compression import Compression, sniff
from shared.errors import CheckpointInvalid
from shared.metadata import Checkpoint

_BLOCK: Final = 512
_END: Final = Literal(bytes(2 * _BLOCK))
_WHITEOUT: Final = ".wh."

_BESIDE_THE_IMAGES: Final = (
    "config.dump",
    "spec.dump",
    "status.dump",
    "bind.mounts",
    "network.status",
    "devshm-checkpoint.tar",
    "dump.log",
    "stats-dump",
)
"""Metadata files of containerd, CRI-O and Podman that a restore, or somebody who looks into one, may want."""

_MEDIA_TYPES: Final = {
    Compression.NONE: oci.LAYER,
    Compression.GZIP: oci.LAYER_GZIP,
    Compression.ZSTD: oci.LAYER_ZSTD,
}


@dataclass(frozen=True)
class Layer:
    """A layer still to be written; ``created_by`` is its line in the image's history."""

    source: Stream
    compression: Compression
    created_by: str
    ahead: Ahead | None = None
    """When its digest is being worked out already."""

    def measurement(self) -> AbstractContextManager[Measurement | Ahead]:
        """What the destination's writing has to pass through; whoever made ``ahead`` ends it."""
        return nullcontext(self.ahead) if self.ahead else self.fresh_measurement()

    def fresh_measurement(self) -> Measurement:
        if isinstance(self.source, Compressing):
            return Measurement(plain_hash=self.source.plain_hash)
        return Measurement(self.compression)

    def compressed(self, wanted: Compression | None) -> Layer:
        """The same content, compressed as ``wanted``; None: as it is."""
        if wanted is None or wanted is self.compression:
            return self
        plain: Stream = self.source
        if self.compression is not Compression.NONE:
            plain = Decompressing(plain, self.compression, f"the {self.created_by}")
        return replace(
            self, source=plain if wanted is Compression.NONE else Compressing(plain, wanted), compression=wanted
        )

    @property
    def media_type(self) -> str:
        return _MEDIA_TYPES[self.compression]


def archive_layer(files: CheckpointFiles, created: datetime) -> Layer:
    """The whole checkpoint as one layer: an archive as it is, byte for byte; an unpacked directory as a tar of it."""
    if files.path.is_dir():
        source: Source = _tar(((name, name) for name in files.names()), files, created)
        return Layer(source, Compression.NONE, f"checkpoint directory {files.path.name}")
    return Layer(FileRange.whole(files.path), files.compression, f"checkpoint archive {files.path.name}")


def rootfs_layer(files: CheckpointFiles, checkpoint: Checkpoint, when: datetime) -> Layer | None:
    """What the container had changed in its root; None when the checkpoint has no such part.

    containerd's diff is a layer already. CRI-O and Podman list deletions in a file of their own: those become
    whiteouts in front of the diff, because a runtime would let a whiteout remove what the same layer brought before.
    """
    whiteouts = _whiteouts(checkpoint.deleted_files, files.path, when)
    name = checkpoint.rootfs_diff
    if name is None:
        whole = Joined([*whiteouts, _END])
        return Layer(whole, Compression.NONE, "files the container had deleted") if whiteouts else None
    with files.open(name) as start:
        compression = sniff(start.read(4))
    if whiteouts and compression is not Compression.NONE:
        raise CheckpointInvalid(
            "DeletedFilesInvalid",
            f"{files.path} has deleted.files beside a compressed {name}; no known engine does that",
        )
    diff = Opened(f"{name} of {files.path}", files.size(name), partial(files.open, name))
    return Layer(Joined([*whiteouts, diff]) if whiteouts else diff, compression, "files the container had changed")


def checkpoint_layer(files: CheckpointFiles, checkpoint: Checkpoint, when: datetime) -> Layer:
    """CRIU's images and the metadata under LAYERED_DIR, readable by root only: they hold the process's memory."""
    wanted = {*_BESIDE_THE_IMAGES, checkpoint.log_member}
    names = [name for name in files.names() if name in wanted or name.startswith("checkpoint/")]
    renamed = ((f"{contract.LAYERED_DIR}/{name}", name) for name in names)
    return Layer(_tar(renamed, files, when), Compression.NONE, "checkpoint of the running process")


def _tar(names: Iterable[tuple[str, str]], files: CheckpointFiles, when: datetime) -> Source:
    """A tar of members under new names; owner root, directories 0700, files 0600."""
    parts: list[Source] = []
    directories: set[str] = set()
    for name, member in names:
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            if str(parent) not in directories:
                directories.add(str(parent))
                parts.append(_header(str(parent), when, directory=True))
        size = files.size(member)
        parts.append(_header(name, when, size=size))
        parts.append(Opened(f"{member} of {files.path}", size, partial(files.open, member)))
        parts.append(Literal(bytes(-size % _BLOCK)))
    return Joined([*parts, _END])


def _header(name: str, when: datetime, *, size: int = 0, directory: bool = False) -> Literal:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    entry.mode = 0o700 if directory else 0o600
    entry.size = size
    entry.mtime = int(when.timestamp())
    return Literal(entry.tobuf(tarfile.PAX_FORMAT))


def _whiteouts(deleted: Iterable[str], archive: Path, when: datetime) -> list[Source]:
    paths = {PurePosixPath(path.lstrip("/")) for path in deleted}
    for path in paths:
        if not path.parts or any(part.startswith(_WHITEOUT) for part in path.parts):
            raise CheckpointInvalid(
                "DeletedFilesInvalid", f"deleted.files of {archive} names /{path}, which no image layer can express"
            )
    # A whiteout below a whiteout would need the directory that the upper one hides.
    outermost = sorted(path for path in paths if paths.isdisjoint(path.parents))
    return [_header(str(path.with_name(_WHITEOUT + path.name)), when) for path in outermost]
