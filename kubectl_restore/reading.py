"""Opens a SOURCE to read it here: a file, a directory, an image in a layout or registry, or what a node has."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shared import oci
from shared.archive import CheckpointFiles, PlainStream, open_checkpoint
from shared.errors import CheckpointInvalid, RestoreError
from shared.tar import IMAGE, MemberWalk

if TYPE_CHECKING:
    from kubectl_restore.image.base import AccessTo
    from kubectl_restore.image.images import Image
    from kubectl_restore.image.layout import LayoutImages
    from kubectl_restore.image.oci_archive import ArchiveImages
    from kubectl_restore.image.progress import Progress
    from kubectl_restore.kube.flags import ClusterFlags

ON_THE_CLUSTER: Final = ("node/", "pod/")


@dataclass(frozen=True)
class OpenCheckpoint:
    name: str
    """As the user named it."""
    files: CheckpointFiles
    image: Image | None
    """The checkpoint image it lies in, if any."""


@contextmanager
def open_source(source: str, access: AccessTo, cluster: ClusterFlags, progress: Progress) -> Iterator[OpenCheckpoint]:
    """``PATH``, ``oci:DIR[:NAME]``, ``oci-archive:FILE[:NAME]``, ``node/NAME:PATH``, ``pod/NAME`` or an image's name.

    What exists as a path is one. Raises RestoreError("SourceMissing") for what is nothing of these, and what reading
    raises; whatever was fetched for it is gone when the context ends.
    """
    path = Path(source)
    if source.startswith(ON_THE_CLUSTER) and not path.exists():
        with _from_cluster(source, cluster, progress) as files:
            yield OpenCheckpoint(source, files, None)
        return
    kind = _kind(source, path)
    if kind == "checkpoint":
        with open_checkpoint(path) as files:
            yield OpenCheckpoint(source, files, None)
        return
    from kubectl_restore.image.checkpoint_image import open_checkpoint_image

    image = _image(kind, source, access)
    with open_checkpoint_image(image, progress) as files:
        yield OpenCheckpoint(source, files, image)


@contextmanager
def _from_cluster(source: str, cluster: ClusterFlags, progress: Progress) -> Iterator[CheckpointFiles]:
    from kubectl_restore.kube.connection import connect
    from kubectl_restore.source.names import source_name
    from kubectl_restore.source.opening import Fetching, opened

    fetching = Fetching(lambda: connect(cluster), progress)
    with opened(source_name(source), fetching) as file, open_checkpoint(file.path) as files:
        yield files


def _kind(source: str, path: Path) -> str:
    """checkpoint, oci, oci-archive or registry."""
    if source.startswith(("oci:", "oci-archive:")):
        return source.partition(":")[0]
    if path.is_dir():
        return "oci" if (path / "oci-layout").is_file() and not (path / "config.dump").exists() else "checkpoint"
    if path.exists() or path.is_symlink():
        return "oci-archive" if _is_oci_archive(path) else "checkpoint"
    if source.startswith(("/", "./", "../", "~")) or source.endswith((".tar", ".gz", ".tgz", ".zst")):
        raise RestoreError("SourceMissing", f"there is no file {source}")
    return "registry"


def _is_oci_archive(path: Path) -> bool:
    """By its first members: what writes an OCI archive puts ``oci-layout`` among them."""
    try:
        with path.open("rb") as file:
            members = MemberWalk(PlainStream(file.fileno()), str(path), IMAGE).members()
            return any(member.name in ("oci-layout", "index.json", "blobs") for member in itertools.islice(members, 8))
    except (CheckpointInvalid, OSError):
        return False  # whoever opens it as a checkpoint says what is wrong with it


def _image(kind: str, source: str, access: AccessTo) -> Image:
    from kubectl_restore.image.checkpoint_image import load_checkpoint_image

    if kind == "registry":
        from kubectl_restore.image.registry_images import RegistryImages

        try:
            reference = oci.parse_reference(source)
        except RestoreError as error:
            raise RestoreError("SourceMissing", f"there is no file {source}, and as an image: {error}") from error
        images = RegistryImages(reference, access(reference.registry))
        return load_checkpoint_image(images, reference.target, str(reference))
    place = source.removeprefix(f"{kind}:")
    path, name = Path(place), ""
    if not path.exists() and ":" in place:
        before, _, name = place.partition(":")
        path = Path(before)
    local = _layout(kind, path)
    chosen = _chosen(local.index, name, str(path))
    return load_checkpoint_image(local, chosen.digest, source)


def _layout(kind: str, path: Path) -> LayoutImages | ArchiveImages:
    if not path.exists():
        raise RestoreError("SourceMissing", f"there is no {path}")
    if kind == "oci":
        from kubectl_restore.image.layout import LayoutImages

        return LayoutImages(path)
    from kubectl_restore.image.oci_archive import ArchiveImages

    return ArchiveImages(path)


def _chosen(index: oci.Index, name: str, place: str) -> oci.Descriptor:
    keys = oci.REF_NAME, oci.CONTAINERD_IMAGE_NAME
    named = [(entry, {entry.annotations[key] for key in keys if key in entry.annotations}) for entry in index.manifests]
    fitting = [entry for entry, names in named if not name or name in names]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(sorted({known for _, names in named for known in names})) or "images without a name"
    if not fitting:
        raise RestoreError("SourceMissing", f"{place} has no image {name or 'at all'}; it has {known}")
    raise RestoreError("SourceMissing", f"{place} has several images; add one of their names: {known}")
