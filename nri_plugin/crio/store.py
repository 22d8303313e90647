"""CRI-O's store, read where CRI-O and containers/storage keep it; nothing is ever written there.

A layered checkpoint image that is the container's own image needs nothing else: CRI-O has mounted its root file system,
the topmost layer holds the checkpoint, and the container keeps every layer from being deleted. Whatever else containerd
would be asked for is refused with LayeredImageNeeded.

Sources: containers/storage ``images.go``, ``layers.go``, ``store.go`` (makeBigDataBaseName), ``drivers/overlay``; CRI-O
``server/container_create.go``: config.json is written after NRI's CreateContainer, and not atomically.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NoReturn

from nri_plugin.containerd import containerd_pb2 as api
from nri_plugin.containerd.client import CRI_METADATA, JSON_LIMIT_BYTES, Containerd, NotFound, layered_needed
from shared import oci
from shared.errors import Unavailable

LOG_PATH: Final = "io.kubernetes.cri-o.LogPath"
IMAGES: Final = "overlay-images"
INDEX_LIMIT_BYTES: Final = 64 << 20
"""Largest images.json and layers.json read; a kilobyte an image or layer is usual."""
_ID: Final = re.compile("[0-9a-f]{64}")
_PLAIN_NAME: Final = re.compile("[0-9a-z.]+")


class CrioStore(Containerd):
    """Answers what a preparation asks a runtime; ``storage`` and ``run`` are containers/storage's two roots."""

    layered_only = True
    tells_of_failures = False

    def __init__(self, storage: Path, run: Path) -> None:
        self.storage = storage
        self.run = run
        self.snapshotter = "overlay"

    def close(self) -> None:
        return

    def call(self, *arguments: Any, **options: Any) -> NoReturn:
        raise layered_needed()

    # images -------------------------------------------------------------------------------------------------------
    def image_target(self, name: str) -> api.Descriptor:
        """By ``sha256:<image id>`` or name; raises NotFound."""
        for image in self._images():
            if name == f"sha256:{image['id']}" or name in _texts(image.get("names")):
                return api.Descriptor(digest=str(image.get("digest")))
        raise NotFound("NotFound", f"{self.storage} has no image {name}; is it CRI-O's? See runtime.storage")

    def images_by_digest(self, digest: str) -> Sequence[api.Image]:
        found = (image for image in self._images() if digest in _digests(image).values())
        return [api.Image(name=name) for image in found for name in _texts(image.get("names"))]

    def read_content(self, digest: str, limit_bytes: int = JSON_LIMIT_BYTES) -> bytes:
        """A manifest or config, checked against its digest; raises NotFound, Unavailable("ImageDamaged")."""
        for image in self._images():
            for name, known in _digests(image).items():
                if known == digest:
                    path = self.storage / IMAGES / image["id"] / blob_file(name)
                    data = _read(path, limit_bytes)
                    if f"sha256:{sha256(data).hexdigest()}" != digest:
                        raise Unavailable("ImageDamaged", f"{path} is not {digest}; pull the image again on the node")
                    return data
        raise NotFound("NotFound", f"{self.storage} has no {digest}")

    # layers -------------------------------------------------------------------------------------------------------
    def view(self, key: str, parent: str, *, lease: str) -> Sequence[api.Mount]:
        """The topmost layer alone of an image with the chain ID ``parent``; raises NotFound."""
        layers = {str(each.get("id")): each for each in self._index("overlay-layers/layers.json")}
        for image in self._images():
            top = str(image.get("layer"))
            source = self.storage / "overlay" / top / "diff"
            if _ID.fullmatch(top) and _chain(layers, top) == parent and source.is_dir() and not source.is_symlink():
                return [api.Mount(type="bind", source=str(source), options=["ro"])]
        raise NotFound("NotFound", f"{self.storage} has no layer {parent}")

    def mounts(self, key: str) -> Sequence[api.Mount]:
        """``key`` is the mounted root file system itself."""
        return [api.Mount(type="bind", source=key, options=["rw"])]

    def has_snapshot(self, key: str) -> bool:
        return False

    def remove_snapshot(self, key: str) -> None:
        return

    # leases: the container keeps its image ------------------------------------------------------------------------
    def create_lease(self, lease: str, labels: Mapping[str, str]) -> None:
        return

    def delete_lease(self, lease: str) -> None:
        return

    def leases(self, prefix: str) -> Sequence[api.Lease]:
        return ()

    def hold(self, lease: str, resource: str, kind: str) -> None:
        return

    # containers ---------------------------------------------------------------------------------------------------
    def container(self, container_id: str) -> api.Container:
        """From the bundle's config.json; raises NotFound until that is whole."""
        path = self.run / "overlay-containers" / container_id / "userdata" / "config.json"
        data = _read(path, JSON_LIMIT_BYTES)
        try:
            spec = json.loads(data)
            root, annotations = str(spec["root"]["path"]), spec.get("annotations") or {}
            log = str(annotations.get(LOG_PATH, ""))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise NotFound("NotFound", f"{path} is not whole yet") from error
        record = api.Container(id=container_id, snapshot_key=root)
        record.spec.value = data
        record.extensions[CRI_METADATA].value = json.dumps({"Metadata": {"LogPath": log}}).encode()
        return record

    def container_ids(self) -> frozenset[str]:
        """Raises Unavailable("RuntimeAway") rather than take every container for gone."""
        try:
            return frozenset(entry.name for entry in (self.run / "overlay-containers").iterdir())
        except OSError as error:
            raise Unavailable(
                "RuntimeAway", f"CRI-O keeps no containers in {self.run}; see runtime.storage_run in the configuration"
            ) from error

    # files --------------------------------------------------------------------------------------------------------
    def _images(self) -> Iterator[dict[str, Any]]:
        return (each for each in self._index(f"{IMAGES}/images.json") if _ID.fullmatch(str(each.get("id"))))

    def _index(self, name: str) -> Sequence[dict[str, Any]]:
        path = self.storage / name
        try:
            found = json.loads(_read(path, INDEX_LIMIT_BYTES))
        except (ValueError, RecursionError) as error:
            raise Unavailable("ImageDamaged", f"{path} is no JSON: {error}") from error
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise Unavailable("ImageDamaged", f"{path} is no list of objects")
        return found


def blob_file(name: str) -> str:
    """The file that containers/storage keeps the named datum of an image in."""
    return name if _PLAIN_NAME.fullmatch(name) else "=" + base64.b64encode(name.encode()).decode()


def _chain(layers: Mapping[str, Mapping[str, Any]], top: str) -> str:
    """The chain ID of a layer; of a loop or a layer that is not there, none."""
    digests: list[str] = []
    while top:
        layer = layers.get(top)
        if layer is None or len(digests) > len(layers):
            return ""
        digests.append(str(layer.get("diff-digest")))
        top = str(layer.get("parent") or "")
    return oci.chain_id(digests[::-1])


def _digests(image: Mapping[str, Any]) -> dict[str, Any]:
    """Of the data kept with an image, by their names."""
    found = image.get("big-data-digests")
    return found if isinstance(found, dict) else {}


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _read(path: Path, limit_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except FileNotFoundError as error:
        raise NotFound("NotFound", f"{path} is not there") from error
    except OSError as error:
        raise Unavailable("ImageDamaged", f"{path} cannot be read: {error.strerror}") from error
    if len(data) > limit_bytes:
        raise Unavailable("BlobTooLarge", f"{path} is larger than {limit_bytes} bytes")
    return data
