"""Checkpoint images with one thing wrong each, made from a sound archive, and many of them imported at once."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shared.contract import IMAGE_FORMAT, LAYERED_DIR, TRIGGER_CONTAINERD
from shared.criu.images import header
from shared.criu.magic import MAGIC
from tests.e2e.node.image import INDEX, MANIFEST, OciImage, image_of, tar_of
from tests.e2e.node.node import Node
from tests.e2e.node.waiting import wait_for

Member = tuple[tarfile.TarInfo, bytes]


@dataclass(frozen=True)
class Archive:
    """A checkpoint archive as its members, in order."""

    members: tuple[Member, ...] = field(repr=False)
    args: tuple[str, ...]
    """The command of the container, whatever becomes of spec.dump."""

    @classmethod
    def read(cls, content: bytes) -> Archive:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            found = [(entry, tar.extractfile(entry)) for entry in tar]
            members = tuple((entry, file.read() if file else b"") for entry, file in found)
        spec = next(content for entry, content in members if entry.name == "spec.dump")
        return cls(members, tuple(json.loads(spec)["process"]["args"]))

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(entry.name for entry, _ in self.members if entry.isreg())

    def tar(self, *, terminated: bool = True) -> bytes:
        """A plain tar; without its terminator it ends where the last member does, which every reader accepts."""
        pieces = []
        for entry, content in self.members:
            pieces += [entry.tobuf(tarfile.PAX_FORMAT), content, bytes(-len(content) % tarfile.BLOCKSIZE)]
        return b"".join(pieces) + (bytes(2 * tarfile.BLOCKSIZE) if terminated else b"")

    def first(self, count: int) -> Archive:
        return replace(self, members=self.members[:count])

    def without(self, *names: str) -> Archive:
        return replace(self, members=tuple(member for member in self.members if member[0].name not in names))

    def with_content(self, name: str, change: Callable[[bytes], bytes]) -> Archive:
        """One file changed."""
        members = []
        for entry, content in self.members:
            if entry.name == name:
                changed = change(content)
                members.append((_regular(name, changed), changed))
            else:
                members.append((entry, content))
        return replace(self, members=tuple(members))

    def with_json(self, name: str, **changes: Any) -> Archive:
        return self.with_content(name, lambda content: json.dumps({**json.loads(content), **changes}).encode())

    def with_entry(self, name: str, kind: bytes, **fields: Any) -> Archive:
        """One file replaced by a link, device or pipe of that name."""
        entry = tarfile.TarInfo(name)
        entry.type = kind
        for key, value in fields.items():
            setattr(entry, key, value)
        changed = ((entry, b"") if each.name == name else (each, content) for each, content in self.members)
        return replace(self, members=tuple(changed))


def _regular(name: str, content: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = 0o600, len(content)
    return entry


def magic_pattern(name: str) -> str | None:
    """The pattern of magic.py that an image's name fits; None for files without a magic number."""
    base = name.removeprefix("checkpoint/")
    for pattern in MAGIC:
        start, number, end = pattern.partition("%")
        middle = base[len(start) : len(base) - len(end)] if end else ""
        if base == pattern or (number and base.startswith(start) and base.endswith(end) and middle.isalnum()):
            return pattern
    return None


def wrong_magic(content: bytes, pattern: str) -> bytes:
    """The image with the last byte of its own magic number changed."""
    position = len(header(pattern)) - 1
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


def archive_image(archive: Archive, layer: bytes | None = None) -> OciImage:
    """A checkpoint image of the archive format, as any tool makes it; ``layer`` replaces the archive's tar."""
    layers = [archive.tar() if layer is None else layer]
    return image_of(layers, {"Cmd": list(archive.args)}, annotations={TRIGGER_CONTAINERD: "counter"})


def layered_image(base: OciImage, archive: Archive, top: bytes | None = None) -> OciImage:
    """A checkpoint image of the layered format without a rootfs diff; ``top`` replaces its last layer."""
    layers = [gzip.decompress(base.blobs[each["digest"]]) for each in json.loads(base.manifest)["layers"]]
    folder = tarfile.TarInfo(LAYERED_DIR)
    folder.type, folder.mode = tarfile.DIRTYPE, 0o700
    moved = [(_renamed(entry, f"{LAYERED_DIR}/{entry.name}"), content) for entry, content in archive.members]
    whole = replace(archive, members=((folder, b""), *moved)).tar()
    config = {**base.config["config"], "Cmd": list(archive.args)}
    return image_of([*layers, whole if top is None else top], config, annotations={IMAGE_FORMAT: "layered"})


def _renamed(entry: tarfile.TarInfo, name: str) -> tarfile.TarInfo:
    copy = tarfile.TarInfo(name)
    copy.type, copy.mode, copy.size = entry.type, entry.mode, entry.size
    return copy


def import_all(node: Node, images: Mapping[str, OciImage]) -> None:
    """Puts every image into the node's store under its name, in one import, and waits until the CRI knows them."""
    entries, files = [], {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    for name, image in images.items():
        names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
        entries.append(
            {"mediaType": MANIFEST, "digest": image.digest, "size": len(image.manifest), "annotations": names}
        )
        for digest, blob in {**image.blobs, image.digest: image.manifest}.items():
            files[f"blobs/{digest.replace(':', '/')}"] = blob
    files["index.json"] = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    node.run(["ctr", "--namespace", "k8s.io", "images", "import", "-"], stdin=tar_of(files), timeout_s=240)
    for name in images:
        wait_for(lambda name=name: node.cri.image_status(name) is not None, f"the CRI to know {name}")  # type: ignore[misc]


def delete_all(node: Node, names: Iterable[str]) -> None:
    node.ctr("images", "rm", "--sync", *names, timeout_s=120)
