"""Images to read from: what a registry, an OCI layout directory and an OCI archive have in common."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from kubectl_restore.image.source import Source
from shared import oci
from shared.errors import RestoreError

_MAX_CONFIG_BYTES = 16 << 20


class Images(Protocol):
    """One place with images; ``place`` names it in sentences."""

    place: str

    def document(self, target: str) -> bytes:
        """The manifest or index for a tag, name or digest; its bytes have the digest when ``target`` is one."""

    def blob(self, descriptor: oci.Descriptor) -> Source:
        """A blob's bytes; whoever reads them checks the digest."""


@dataclass(frozen=True)
class Image:
    """An image of one platform, with every digest it is known by."""

    images: Images
    name: str
    manifest: oci.Manifest
    manifest_digest: str
    index_digest: str | None
    config: dict[str, Any]

    @property
    def digests(self) -> frozenset[str]:
        known = {self.manifest_digest, self.manifest.config.digest}
        return frozenset(known | {self.index_digest} if self.index_digest else known)

    @property
    def has_command(self) -> bool:
        """Whether its config says what to run."""
        section = self.config.get("config")
        return isinstance(section, dict) and bool(section.get("Entrypoint") or section.get("Cmd"))

    @property
    def diff_ids(self) -> tuple[str, ...]:
        rootfs = self.config.get("rootfs")
        listed = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        return tuple(listed) if isinstance(listed, list) and all(isinstance(entry, str) for entry in listed) else ()

    @property
    def platform(self) -> oci.Platform:
        return _platform(self.config)


def load_image(images: Images, target: str, name: str, platform: oci.Platform) -> Image:
    """Reads manifest and config of ``target``, from an index the part for ``platform``.

    Raises RestoreError: PlatformMissing, ManifestInvalid, ImageInvalid, and what the place itself raises.
    """
    content = images.document(target)
    document = oci.parse_document(content)
    index_digest = None
    if isinstance(document, oci.Index):
        index_digest = oci.digest_of(content)
        chosen = document.choose(platform)
        if chosen is None:
            raise RestoreError("PlatformMissing", f"{name} in {images.place} has no image for {platform}")
        content = images.document(chosen.digest)
        document = oci.parse_document(content)
        if isinstance(document, oci.Index):
            raise RestoreError("ManifestInvalid", f"{name} in {images.place} is an index inside an index")
    image = Image(images, name, document, oci.digest_of(content), index_digest, _config(images, document.config, name))
    if len(image.diff_ids) != len(document.layers):
        raise RestoreError(
            "ImageInvalid",
            f"{name} in {images.place} has {len(document.layers)} layers, but {len(image.diff_ids)} diff_ids",
        )
    return image


def _config(images: Images, descriptor: oci.Descriptor, name: str) -> dict[str, Any]:
    if descriptor.size > _MAX_CONFIG_BYTES:
        raise RestoreError("ImageInvalid", f"the config of {name} in {images.place} is {descriptor.size} bytes long")
    source = images.blob(descriptor)
    content = b"".join(source.pieces()) if source.size == descriptor.size else b""
    if len(content) != descriptor.size or not oci.matches(content, descriptor.digest):
        raise RestoreError("ImageInvalid", f"the config of {name} in {images.place} is not {descriptor.digest}")
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RestoreError("ImageInvalid", f"the config of {name} in {images.place} is not JSON") from error
    if not isinstance(config, dict):
        raise RestoreError("ImageInvalid", f"the config of {name} in {images.place} is no object")
    return config


def _platform(config: dict[str, Any]) -> oci.Platform:
    system, architecture, variant = (config.get(key) for key in ("os", "architecture", "variant"))
    if not isinstance(system, str) or not isinstance(architecture, str):
        raise RestoreError("ImageInvalid", "the base image's config names no platform")
    return oci.Platform(system, architecture, variant if isinstance(variant, str) else None)
