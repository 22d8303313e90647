"""An image read back from wherever it was put, every digest checked, and its layers applied as a runtime does."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import zstandard

from kubectl_restore.image.images import Images
from shared import oci


@dataclass(frozen=True)
class PulledImage:
    manifest: dict[str, Any]
    config: dict[str, Any]
    layers: list[bytes]
    plain_layers: list[bytes]

    def root(self) -> dict[str, tuple[int, bytes]]:
        """Files and folders (ending in /) after applying all layers: mode and content."""
        found: dict[str, tuple[int, bytes]] = {}
        for layer in self.plain_layers:
            _apply(found, layer)
        return found


def pull(images: Images, target: str) -> PulledImage:
    content = images.document(target)
    assert not oci.is_digest(target) or oci.digest_of(content) == target
    manifest = json.loads(content)
    assert manifest["mediaType"] == oci.MANIFEST
    config = json.loads(_blob(images, manifest["config"]))
    layers = [_blob(images, descriptor) for descriptor in manifest["layers"]]
    plain = [
        _plain(layer, descriptor["mediaType"]) for layer, descriptor in zip(layers, manifest["layers"], strict=True)
    ]
    assert config["rootfs"]["diff_ids"] == [oci.digest_of(layer) for layer in plain]
    filled = [line for line in config["history"] if not line.get("empty_layer")]
    assert len(filled) == len(layers)
    return PulledImage(manifest, config, layers, plain)


def decompressed(content: bytes) -> bytes:
    """By the first bytes: gzip members, zstd frames, or as it is."""
    if content.startswith(b"\x1f\x8b"):
        return gzip.decompress(content)
    if content.startswith(b"\x28\xb5\x2f\xfd"):
        with zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True) as reader:
            return reader.read()
    return content


def _blob(images: Images, document: dict[str, Any]) -> bytes:
    descriptor = oci.parse_descriptor(document)
    content = b"".join(images.blob(descriptor).pieces())
    assert (oci.digest_of(content), len(content)) == (descriptor.digest, descriptor.size)
    return content


def _plain(layer: bytes, media_type: str) -> bytes:
    if media_type == oci.LAYER_GZIP:
        return gzip.decompress(layer)
    if media_type == oci.LAYER_ZSTD:
        return decompressed(layer)
    assert media_type == oci.LAYER
    return layer


def _apply(root: dict[str, tuple[int, bytes]], layer: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if path.name.startswith(".wh."):
                gone = str(path.with_name(path.name.removeprefix(".wh.")))
                for name in [name for name in root if name == gone or name.startswith(f"{gone}/")]:
                    del root[name]
            elif member.isdir():
                root[f"{path}/"] = member.mode, b""
            else:
                file = archive.extractfile(member)
                root[str(path)] = member.mode, file.read() if file else b""
