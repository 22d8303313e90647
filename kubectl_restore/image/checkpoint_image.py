"""Opens the checkpoint inside a checkpoint image, archive or layered, wherever the image is.

A layer that is a file of its own is read where it lies; one in an OCI archive or a registry is copied to a temporary
file first, readable by its owner only and without a name once it is open: it holds a process's memory.
"""

from __future__ import annotations

import hashlib
import os
import platform as this_machine
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kubectl_restore.image.base import is_layered_checkpoint
from kubectl_restore.image.images import Image, Images, load_image
from kubectl_restore.image.progress import Progress
from kubectl_restore.image.source import FileRange, Source
from shared import contract, oci
from shared.archive import CheckpointFiles, open_checkpoint
from shared.errors import RestoreError
from shared.metadata import CONFIG

_GO_NAMES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
"""``uname -m`` to GOARCH where they differ."""


def load_checkpoint_image(images: Images, target: str, name: str) -> Image:
    """The image named; of an index the only part, or the one for this machine's processor."""
    document = oci.parse_document(images.document(target))
    if isinstance(document, oci.Index) and len(document.manifests) == 1:
        target = document.manifests[0].digest
    machine = this_machine.machine()
    return load_image(images, target, name, oci.Platform("linux", _GO_NAMES.get(machine, machine)))


@contextmanager
def open_checkpoint_image(image: Image, progress: Progress) -> Iterator[CheckpointFiles]:
    """Raises RestoreError("NotACheckpoint") for an ordinary image, and what opening an archive raises."""
    layers = image.manifest.layers
    if is_layered_checkpoint(image) and layers:
        layer, folder = layers[-1], contract.LAYERED_DIR
    elif len(layers) == 1:
        layer, folder = layers[0], ""
    else:
        raise _no_checkpoint(image, f"it has {len(layers)} layers and no mark that it holds a checkpoint")
    with _opened(image.images.blob(layer), layer, folder, progress) as files:
        if CONFIG not in files:
            raise _no_checkpoint(image, f"its last layer has no {CONFIG}")
        files.path = Path(image.name)
        yield files


def _no_checkpoint(image: Image, why: str) -> RestoreError:
    return RestoreError("NotACheckpoint", f"{image.name} is no checkpoint image: {why}")


@contextmanager
def _opened(blob: Source, layer: oci.Descriptor, folder: str, progress: Progress) -> Iterator[CheckpointFiles]:
    if isinstance(blob, FileRange) and blob.start == 0 and blob.size == blob.path.stat().st_size:
        with open_checkpoint(blob.path, subdirectory=folder) as files:
            yield files
        return
    descriptor, path = tempfile.mkstemp(prefix="kubectl-restore-")
    try:
        with os.fdopen(descriptor, "wb") as copy:
            _copy(blob, layer, copy.write, progress)
        files = open_checkpoint(Path(path), subdirectory=folder)
    finally:
        Path(path).unlink()
    with files:
        yield files


def _copy(blob: Source, layer: oci.Descriptor, write: Callable[[bytes], object], progress: Progress) -> None:
    algorithm, _, wanted = layer.digest.partition(":")
    digest = hashlib.new(algorithm)
    left = layer.size
    for piece in progress.track("checkpoint", layer.size, blob.pieces()):
        left -= len(piece)
        if left < 0:
            break
        digest.update(piece)
        write(piece)
    if left or digest.hexdigest() != wanted:
        raise RestoreError("ImageInvalid", f"the layer that came for {layer.digest} is another one, or cut short")
