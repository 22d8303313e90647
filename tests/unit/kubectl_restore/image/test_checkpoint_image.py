from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kubectl_restore.image.checkpoint_image import load_checkpoint_image, open_checkpoint_image
from kubectl_restore.image.images import Image
from kubectl_restore.image.progress import Silent
from kubectl_restore.image.source import Literal, Source
from shared import oci
from shared.errors import CheckpointInvalid, RestoreError
from shared.metadata import read_checkpoint
from tests.support.checkpoints import containerd, tar_of


@dataclass
class MemoryImages:
    """Images in memory that may give other bytes than they promise."""

    place: str = "memory"
    documents: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def document(self, target: str) -> bytes:
        return self.documents[target]

    def blob(self, descriptor: oci.Descriptor) -> Source:
        return Literal(self.blobs[descriptor.digest])

    def add(self, *layers: bytes, architecture: str = "amd64", annotations: dict[str, str] | None = None) -> str:
        """The digest of a manifest with these layers."""
        diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        config = oci.encode(
            {"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        )
        self.blobs |= {oci.digest_of(each): each for each in (config, *layers)}
        descriptors = tuple(oci.Descriptor(oci.LAYER, oci.digest_of(each), len(each)) for each in layers)
        manifest = oci.Manifest(
            oci.Descriptor(oci.CONFIG, oci.digest_of(config), len(config)), descriptors, annotations or {}
        )
        content = oci.encode(manifest.as_json())
        self.documents[oci.digest_of(content)] = content
        return oci.digest_of(content)

    def add_index(self, *entries: tuple[str, str]) -> str:
        listed: list[dict[str, Any]] = [
            {
                "mediaType": oci.MANIFEST,
                "digest": digest,
                "size": len(self.documents[digest]),
                "platform": {"os": "linux", "architecture": architecture},
            }
            for digest, architecture in entries
        ]
        content = json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": listed}).encode()
        self.documents[oci.digest_of(content)] = content
        return oci.digest_of(content)


def name_in(image: Image) -> str:
    with open_checkpoint_image(image, Silent()) as files:
        return read_checkpoint(files).container_name


def test_archive_image_made_by_anyone_needs_no_mark() -> None:
    images = MemoryImages()
    digest = images.add(gzip.compress(tar_of(containerd())))
    assert name_in(load_checkpoint_image(images, digest, "ck:1")) == "app"


def test_layered_image_has_it_in_its_last_layer() -> None:
    images = MemoryImages()
    inside = {f".nri-restore/{name}": content for name, content in containerd().items()}
    mark = {"io.nri-restore.checkpoint.format": "layered"}
    digest = images.add(tar_of({"bin/app": b"1"}), tar_of(inside), annotations=mark)
    assert name_in(load_checkpoint_image(images, digest, "ck:1")) == "app"


@pytest.mark.parametrize("architectures", [("arm64",), ("arm64", "amd64")])
def test_index_with_one_part_or_one_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, architectures: tuple[str, ...]
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    images = MemoryImages()
    entries = [(images.add(tar_of(containerd()), architecture=each), each) for each in architectures]
    assert name_in(load_checkpoint_image(images, images.add_index(*entries), "ck:1")) == "app"


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([tar_of({"bin/app": b"1"})], "no config.dump"),
        ([tar_of({"a": b""}), tar_of(containerd())], "2 layers"),
        ([], "0 layers"),
    ],
)
def test_image_that_is_no_checkpoint(layers: list[bytes], words: str) -> None:
    images = MemoryImages()
    image = load_checkpoint_image(images, images.add(*layers), "app:1")
    with pytest.raises(RestoreError, match=words) as refusal:
        name_in(image)
    assert refusal.value.reason == "NotACheckpoint"


@pytest.mark.parametrize("change", [lambda each: each[:-512], lambda each: each + b"\0", lambda each: each[::-1]])
def test_layer_that_is_another_one_is_refused_and_leaves_nothing(
    change: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    images = MemoryImages()
    layer = tar_of(containerd())
    image = load_checkpoint_image(images, images.add(layer), "ck:1")
    images.blobs[oci.digest_of(layer)] = change(layer)
    with pytest.raises(RestoreError) as refusal:
        name_in(image)
    assert refusal.value.reason == "ImageInvalid"
    assert list(tmp_path.iterdir()) == []


def test_layer_is_copied_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    images = MemoryImages()
    image = load_checkpoint_image(images, images.add(tar_of(containerd())), "ck:1")
    with open_checkpoint_image(image, Silent()) as files:
        assert list(tmp_path.iterdir()) == []
        assert str(files.path) == "ck:1"
        assert files.read("config.dump", 1 << 20)


def test_damaged_layer_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    images = MemoryImages()
    image = load_checkpoint_image(images, images.add(b"no tar" * 200), "ck:1")
    with pytest.raises(CheckpointInvalid):
        name_in(image)
    assert list(tmp_path.iterdir()) == []
