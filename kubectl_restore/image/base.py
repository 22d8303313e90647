"""Finds the image that a checkpointed container had been started from, and makes sure that it is that one.

The reference in the archive is untrusted: it is only ever asked for by digest, and only read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kubectl_restore.image.access import Access
from kubectl_restore.image.images import Image, Images, load_image
from kubectl_restore.image.layout import LayoutImages
from kubectl_restore.image.oci_archive import ArchiveImages
from shared import contract, oci
from shared.errors import Refused, RestoreError
from shared.metadata import BaseImage

AccessTo = Callable[[str], Access]
"""How to reach the registry of that host."""


def recorded_base(recorded: BaseImage, platform: oci.Platform, access: AccessTo) -> Image:
    """The base image as the checkpoint recorded it, from its registry.

    Raises RestoreError: BaseUnknown, Refused("BaseMoved") when only a tag was recorded and it names another image now,
    and what reading from a registry raises.
    """
    if recorded.digest and recorded.reference:
        reference = oci.parse_reference(recorded.reference)
        return _from_registry(reference, recorded.digest, platform, access)
    if not recorded.config_digest or not recorded.name:
        raise RestoreError("BaseUnknown", "the checkpoint does not record by digest what image it was started from")
    reference = oci.parse_reference(recorded.name)
    image = _from_registry(reference, reference.target, platform, access)
    if image.manifest.config.digest != recorded.config_digest:
        raise Refused(
            "BaseMoved",
            f"{reference} names the image {image.manifest.config.digest} now, but the container was started "
            f"from {recorded.config_digest}",
        )
    return image


def named_base(wanted: str, recorded: BaseImage, platform: oci.Platform, access: AccessTo) -> tuple[Image, list[str]]:
    """The image that the user names (``REF``, ``oci:DIR[:NAME]``, ``oci-archive:FILE[:NAME]``), and warnings.

    Raises Refused("BaseMismatch") when it certainly is another image than the dump's.
    """
    kind, _, place = wanted.partition(":")
    if kind in ("oci", "oci-archive"):
        image = _from_layout(kind, place, recorded, platform)
    else:
        reference = oci.parse_reference(wanted)
        image = _from_registry(reference, reference.target, platform, access)
    return image, _compare(image, recorded, platform, access)


def is_layered_checkpoint(image: Image) -> bool:
    return _markers(image).get(contract.IMAGE_FORMAT) == "layered"


def is_archive_checkpoint(image: Image) -> bool:
    """Whether the image is a checkpoint archive in an image: its layers are no container's root."""
    markers = _markers(image)
    return not is_layered_checkpoint(image) and any(key in markers for key in contract.CHECKPOINT_MARKERS)


def _markers(image: Image) -> dict[str, str]:
    section = image.config.get("config")
    labels = section.get("Labels") if isinstance(section, dict) else None
    return {**(labels if isinstance(labels, dict) else {}), **image.manifest.annotations}


def _from_registry(reference: oci.Reference, target: str, platform: oci.Platform, access: AccessTo) -> Image:
    # Loading the client takes as long as building a small image.
    from kubectl_restore.image.registry_images import RegistryImages

    return load_image(RegistryImages(reference, access(reference.registry)), target, str(reference), platform)


def _from_layout(kind: str, place: str, recorded: BaseImage, platform: oci.Platform) -> Image:
    path, name = Path(place), ""
    if not path.exists() and ":" in place:
        before, _, name = place.partition(":")
        path = Path(before)
    if not path.exists():
        raise RestoreError("LayoutInvalid", f"there is no {path}; give --base as {kind}:PATH or {kind}:PATH:NAME")
    images: LayoutImages | ArchiveImages = LayoutImages(path) if kind == "oci" else ArchiveImages(path)
    entry = _choose(images.index, name, recorded, str(path))
    return load_image(images, entry.digest, f"{kind}:{path}", platform)


def _choose(index: oci.Index, name: str, recorded: BaseImage, place: str) -> oci.Descriptor:
    entries = index.manifests
    if name:
        fitting = [entry for entry in entries if name in _names(entry)]
    else:
        fitting = [entry for entry in entries if entry.digest == recorded.digest]
        fitting = fitting or [entry for entry in entries if recorded.name in _names(entry)]
        fitting = fitting or ([entries[0]] if len(entries) == 1 else [])
    if not fitting:
        known = ", ".join(sorted({known for entry in entries for known in _names(entry)})) or "images without a name"
        raise RestoreError("BaseUnknown", f"{place} has no image {name or recorded.name or ''}; it has {known}")
    return fitting[0]


def _names(entry: oci.Descriptor) -> set[str]:
    keys = oci.REF_NAME, oci.CONTAINERD_IMAGE_NAME
    return {entry.annotations[key] for key in keys if key in entry.annotations}


def _compare(image: Image, recorded: BaseImage, platform: oci.Platform, access: AccessTo) -> list[str]:
    """Warnings; the same image packed again (another manifest, the same uncompressed layers) is as good."""
    wanted = recorded.digest or recorded.config_digest
    if wanted is None:
        return [
            f"the checkpoint does not record what image it was started from; nothing proves that it was {image.name}"
        ]
    if wanted in image.digests:
        return []
    try:
        original = _original(image.images, recorded, platform, access)
    except RestoreError as error:
        doubt = f"nothing proves that the container was started from {image.name}: its digest is not {wanted}, and"
        return [f"{doubt} that image cannot be read to compare the layers: {error}"]
    pairs = list(zip(image.diff_ids, original.diff_ids, strict=False))
    differing = next((number for number, (ours, theirs) in enumerate(pairs, 1) if ours != theirs), None)
    if differing is None and len(image.diff_ids) == len(original.diff_ids):
        return []
    if differing is None:
        what = f"it has {len(image.diff_ids)} layers, the right one has {len(original.diff_ids)}"
    else:
        ours, theirs = pairs[differing - 1]
        what = f"its layer {differing} is {ours}, the right one's is {theirs}"
    raise Refused(
        "BaseMismatch",
        f"{image.name} is not the image that the container was started from ({recorded.name or wanted}): {what}; "
        "name that image with --base",
    )


def _original(images: Images, recorded: BaseImage, platform: oci.Platform, access: AccessTo) -> Image:
    if recorded.digest:
        try:
            return load_image(images, recorded.digest, recorded.digest, platform)
        except RestoreError:
            pass  # not where the user's image is; its own registry may have it
    return recorded_base(recorded, platform, access)
