"""OCI image documents: media types, descriptors, manifests, indexes, platforms and image references.

Sources: OCI image-spec v1.1 (descriptor.md, manifest.md, image-index.md, config.md), distribution/reference
(grammar of image references), Docker's "Image Manifest Version 2, Schema 2". Everything parsed here is untrusted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from shared.errors import RestoreError
from shared.member_names import quoted

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"

ACCEPTED_MANIFESTS: Final = (MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX)
"""What we ask a registry for, most wanted first."""

TO_OCI: Final[Mapping[str, str]] = MappingProxyType(
    {
        DOCKER_CONFIG: CONFIG,
        "application/vnd.docker.image.rootfs.diff.tar": LAYER,
        "application/vnd.docker.image.rootfs.diff.tar.gzip": LAYER_GZIP,
        "application/vnd.docker.image.rootfs.diff.tar.zstd": LAYER_ZSTD,
    }
)
"""Docker's media types and their OCI names: the blobs are the same, an OCI manifest must name them the OCI way."""

REF_NAME: Final = "org.opencontainers.image.ref.name"
CONTAINERD_IMAGE_NAME: Final = "io.containerd.image.name"
"""Descriptor annotation in an index: the full reference, read by containerd's import."""

MAX_DOCUMENT_BYTES: Final = 4 << 20
"""Registries and runtimes refuse manifests above 4 MiB (distribution-spec, "Pushing Manifests")."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_REGISTRY = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DEFAULT_REGISTRY = "docker.io"


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def matches(content: bytes, digest: str) -> bool:
    """Whether ``content`` has ``digest``, whichever of the two registered algorithms that names."""
    algorithm, _, wanted = digest.partition(":")
    return hashlib.new(algorithm, content).hexdigest() == wanted


def chain_id(diff_ids: Sequence[str]) -> str:
    """The name of the snapshot these layers make (OCI image-spec config.md, Layer ChainID)."""
    chain = ""
    for diff_id in diff_ids:
        chain = f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}" if chain else diff_id
    return chain


def encode(document: Mapping[str, Any]) -> bytes:
    """A document as compact JSON with sorted keys, so that the same image always has the same digest."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True)
class Platform:
    os: str
    architecture: str
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def as_json(self) -> dict[str, str]:
        document = {"os": self.os, "architecture": self.architecture}
        return {**document, "variant": self.variant} if self.variant else document


@dataclass(frozen=True)
class Descriptor:
    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.platform:
            document["platform"] = self.platform.as_json()
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return document

    def as_oci(self) -> Descriptor:
        """The same blob under its OCI media type; other media types stay what they are."""
        return replace(self, media_type=TO_OCI.get(self.media_type, self.media_type))


@dataclass(frozen=True)
class Manifest:
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.config.as_json(),
            "layers": [layer.as_json() for layer in self.layers],
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return document


@dataclass(frozen=True)
class Index:
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)

    def choose(self, platform: Platform) -> Descriptor | None:
        """The manifest for ``platform``; one without a variant serves when the wanted variant is absent."""
        fitting = [
            entry
            for entry in self.manifests
            if entry.platform
            and (entry.platform.os, entry.platform.architecture) == (platform.os, platform.architecture)
        ]
        exact = [entry for entry in fitting if entry.platform and entry.platform.variant == platform.variant]
        if exact or fitting:
            return (exact or fitting)[0]
        unnamed = [entry for entry in self.manifests if entry.platform is None]
        return unnamed[0] if len(self.manifests) == 1 and unnamed else None


def parse_document(content: bytes) -> Manifest | Index:
    """An image manifest or index, OCI's or Docker's.

    Raises RestoreError("ManifestInvalid") for anything else, Docker's schema 1 included.
    """
    if len(content) > MAX_DOCUMENT_BYTES:
        raise _invalid(f"is {len(content)} bytes long; registries allow {MAX_DOCUMENT_BYTES}")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _invalid("is not JSON") from error
    if not isinstance(document, dict) or document.get("schemaVersion") != 2:
        raise _invalid("has no schemaVersion 2")
    annotations = _strings(document.get("annotations"))
    # image-spec: a document with both kinds of content must be refused (CVE-2021-41190).
    if "manifests" in document and "layers" not in document and "config" not in document:
        return Index(tuple(map(parse_descriptor, _list(document["manifests"]))), annotations)
    if "layers" in document and "config" in document and "manifests" not in document:
        layers = tuple(map(parse_descriptor, _list(document["layers"])))
        return Manifest(parse_descriptor(document["config"]), layers, annotations)
    raise _invalid("is neither an image manifest nor an image index")


def parse_descriptor(document: object) -> Descriptor:
    """A descriptor from parsed JSON; raises RestoreError("ManifestInvalid") naming the field that is wrong."""
    if not isinstance(document, dict):
        raise _invalid("has a descriptor that is no object")
    media_type, digest, size = document.get("mediaType"), document.get("digest"), document.get("size")
    if not isinstance(media_type, str):
        raise _invalid("has a descriptor without a mediaType")
    if not isinstance(digest, str) or not is_digest(digest):
        raise _invalid(f"has a descriptor with the digest {str(digest)[:100]!r}")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _invalid(f"has a descriptor with the size {str(size)[:100]!r}")
    platform = document.get("platform")
    return Descriptor(
        media_type, digest, size, _strings(document.get("annotations")), _platform(platform) if platform else None
    )


@dataclass(frozen=True)
class Reference:
    """An image reference in full form; ``registry`` is host[:port] as the user knows it (docker.io for Docker Hub)."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        return f"{self.registry}/{self.repository}"

    @property
    def target(self) -> str:
        """What to ask the registry for: the digest when there is one, else the tag."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """Reads an image reference the way Docker and the CRI do: short names belong to docker.io, no tag means latest.

    Raises RestoreError("ReferenceInvalid").
    """
    rest, _, digest = text.partition("@")
    if "@" in text and not is_digest(digest):
        raise _bad_reference(text, "what follows @ is no sha256 digest")
    first, slash, remainder = rest.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first or first != first.lower()):
        registry, path = first, remainder
    else:
        registry, path = _DEFAULT_REGISTRY, rest
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _bad_reference(text, f"{quoted(tag)} is no valid tag")
    if not _REGISTRY.fullmatch(registry):
        raise _bad_reference(text, f"{quoted(registry)} is no valid registry host")
    if registry == _DEFAULT_REGISTRY and path and "/" not in path:
        path = f"library/{path}"
    if not _REPOSITORY.fullmatch(path) or len(path) > 255:
        raise _bad_reference(
            text, f"{quoted(path)} is no valid repository name (lower-case letters, digits, . _ - and /)"
        )
    return Reference(registry, path, tag or (None if digest else "latest"), digest or None)


def _platform(document: object) -> Platform | None:
    fields = _strings(document)
    if "os" not in fields or "architecture" not in fields:
        return None
    return Platform(fields["os"], fields["architecture"], fields.get("variant") or None)


def _strings(document: object) -> dict[str, str]:
    if not isinstance(document, dict):
        return {}
    return {key: value for key, value in document.items() if isinstance(value, str)}


def _list(document: object) -> list[object]:
    if not isinstance(document, list):
        raise _invalid("has a field that must be a list and is not")
    return document


def _invalid(what: str) -> RestoreError:
    return RestoreError("ManifestInvalid", f"the image manifest {what}")


def _bad_reference(text: str, why: str) -> RestoreError:
    return RestoreError("ReferenceInvalid", f"{quoted(text)} is no image reference: {why}")
