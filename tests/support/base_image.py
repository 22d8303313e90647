"""A small base image, put into an OCI layout, an OCI archive or a fake registry."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared import oci
from tests.support.checkpoints import tar_of
from tests.support.fake_registry import FakeRegistry


@dataclass
class BaseImage:
    """Two layers and a config with everything the CRI acts on."""

    files: list[dict[str, bytes]] = field(
        default_factory=lambda: [{"bin/app": b"#!"}, {"etc/motd": b"hello", "root/keep": b"1"}]
    )
    architecture: str = "amd64"
    compress_level: int = 9
    labels: dict[str, str] = field(default_factory=lambda: {"team": "shop"})
    annotations: dict[str, str] = field(default_factory=dict)
    docker: bool = False

    @property
    def layers(self) -> list[bytes]:
        return [gzip.compress(tar_of(files), self.compress_level, mtime=0) for files in self.files]

    @property
    def diff_ids(self) -> list[str]:
        return [oci.digest_of(tar_of(files)) for files in self.files]

    @property
    def config(self) -> bytes:
        return oci.encode(
            {
                "architecture": self.architecture,
                "os": "linux",
                "config": {
                    "Env": ["PATH=/bin", "BASE=1"],
                    "WorkingDir": "/srv",
                    "Volumes": {"/data": {}},
                    "StopSignal": "SIGUSR1",
                    "Labels": self.labels,
                    "Entrypoint": ["/entry"],
                    "Cmd": ["base-command"],
                    "User": "nobody",
                },
                "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
                "history": [
                    {"created_by": "FROM scratch"},
                    {"created_by": "ENV BASE=1", "empty_layer": True},
                    {"created_by": "COPY . /"},
                ],
            }
        )

    @property
    def manifest(self) -> bytes:
        layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip" if self.docker else oci.LAYER_GZIP
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": oci.DOCKER_MANIFEST if self.docker else oci.MANIFEST,
            "config": _descriptor(oci.DOCKER_CONFIG if self.docker else oci.CONFIG, self.config),
            "layers": [_descriptor(layer_type, layer) for layer in self.layers],
        }
        if self.annotations:
            document["annotations"] = self.annotations
        return oci.encode(document)

    @property
    def digest(self) -> str:
        return oci.digest_of(self.manifest)

    @property
    def config_digest(self) -> str:
        return oci.digest_of(self.config)

    @property
    def blobs(self) -> list[bytes]:
        return [*self.layers, self.config]

    def index(self, name: str = "registry.example/app:1") -> bytes:
        annotations = {oci.REF_NAME: name}
        return oci.encode(
            {
                "schemaVersion": 2,
                "mediaType": oci.INDEX,
                "manifests": [{**_descriptor(oci.MANIFEST, self.manifest), "annotations": annotations}],
            }
        )

    def layout_files(self) -> dict[str, bytes]:
        blobs = {f"blobs/{oci.digest_of(blob).replace(':', '/')}": blob for blob in [*self.blobs, self.manifest]}
        return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": self.index(), **blobs}

    def write_layout(self, path: Path) -> str:
        """The ``--base`` that names it."""
        for name, content in self.layout_files().items():
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return f"oci:{path}"

    def write_archive(self, path: Path) -> str:
        path.write_bytes(tar_of(self.layout_files()))
        return f"oci-archive:{path}"

    def push(self, registry: FakeRegistry, repository: str = "app", tag: str = "1") -> str:
        """The reference by tag."""
        for blob in self.blobs:
            registry.add_blob(repository, blob)
        registry.add_manifest(repository, tag, self.manifest)
        return f"{registry.host}/{repository}:{tag}"

    def push_index(self, registry: FakeRegistry, *others: BaseImage, repository: str = "app", tag: str = "1") -> str:
        """The digest of an index of this image and others, one a platform."""
        entries = []
        for image in (self, *others):
            image.push(registry, repository, f"only-{image.architecture}")
            platform = {"os": "linux", "architecture": image.architecture}
            entries.append({**_descriptor(oci.MANIFEST, image.manifest), "platform": platform})
        content = oci.encode({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries})
        return registry.add_manifest(repository, tag, content)


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": oci.digest_of(content), "size": len(content)}


def config_of(content: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(content)
    return document
