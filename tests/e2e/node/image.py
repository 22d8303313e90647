"""Small OCI images made by the tests: a busybox userland and the pause image, from the base root's busybox."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.run import run

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


def digest_of(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


@dataclass(frozen=True)
class OciImage:
    """One manifest and every blob it names, by digest."""

    manifest: bytes
    blobs: Mapping[str, bytes] = field(repr=False)

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(self.blobs[json.loads(self.manifest)["config"]["digest"]])
        return config

    def archive(self, name: str) -> bytes:
        """An OCI archive (tar of an OCI layout) that ``ctr images import`` stores under ``name``."""
        entry = {
            "mediaType": json.loads(self.manifest).get("mediaType", MANIFEST),
            "digest": self.digest,
            "size": len(self.manifest),
            "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
        }
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
        files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
        for digest, blob in {**self.blobs, self.digest: self.manifest}.items():
            files[f"blobs/{digest.replace(':', '/')}"] = blob
        return tar_of(files)


def tar_of(
    files: Mapping[str, bytes], *, links: Mapping[str, str] | None = None, modes: Mapping[str, int] | None = None
) -> bytes:
    """A reproducible plain tar; a name that ends in ``/`` is a directory; files default to mode 0644."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name.rstrip("/"))
            if name.endswith("/"):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            else:
                entry.mode, entry.size = 0o644, len(content)
            entry.mode = (modes or {}).get(name, entry.mode)
            tar.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
            tar.addfile(entry)
    return out.getvalue()


def image_of(
    layers: Sequence[bytes],
    config: Mapping[str, Any],
    *,
    annotations: Mapping[str, str] | None = None,
    compressed: bool = False,
) -> OciImage:
    """An image of plain tar layers (gzipped when ``compressed``) and the ``config`` part of its image config."""
    blobs: dict[str, bytes] = {}

    def add(blob: bytes, media_type: str) -> dict[str, Any]:
        blobs[digest_of(blob)] = blob
        return {"mediaType": media_type, "digest": digest_of(blob), "size": len(blob)}

    described = [
        add(gzip.compress(layer, mtime=0), f"{LAYER}+gzip") if compressed else add(layer, LAYER) for layer in layers
    ]
    machine = platform.machine()
    whole = {
        "architecture": ARCHITECTURE.get(machine, machine),
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": add(json.dumps(whole).encode(), CONFIG),
        "layers": described,
        **({"annotations": dict(annotations)} if annotations else {}),
    }
    return OciImage(json.dumps(manifest).encode(), blobs)


def busybox_layer(root: Path, files: Mapping[str, bytes] | None = None) -> bytes:
    """A userland of the base root's static busybox: all applets, users, /etc/motd, and ``files`` on top."""
    busybox = root / "bin/busybox"
    applets = run([busybox, "--list-full"], timeout_s=20).stdout.split()
    own = {
        **{
            f"{name}/": b""
            for name in ("bin", "etc", "home", "root", "sbin", "tmp", "usr", "usr/bin", "usr/sbin", "var")
        },
        "bin/busybox": busybox.read_bytes(),
        "etc/group": b"root:x:0:\napp:x:1000:\n",
        "etc/motd": b"Welcome to busybox.\n",
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home:/bin/sh\n",
        **(files or {}),
    }
    # Debian's busybox is linux with /usr merged: its full names already are usr/bin/…, and sh must be in /bin too.
    links = {name.removeprefix("/"): "/bin/busybox" for name in applets if not name.endswith("bin/busybox")}
    links |= {f"bin/{Path(name).name}": "/bin/busybox" for name in applets if Path(name).name != "busybox"}
    return tar_of(own, links=links, modes={"bin/busybox": 0o755, "tmp/": 0o1777, "root/": 0o700})


def busybox_image(root: Path, files: Mapping[str, bytes] | None = None, **config: Any) -> OciImage:
    """The image ordinary test containers run; ``config`` overrides parts of its config (Env, User, Volumes …)."""
    defaults = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]}
    return image_of([busybox_layer(root, files)], {**defaults, **config}, compressed=True)


def pause_image(root: Path) -> OciImage:
    """What holds a pod's namespaces: sleeps, reaps, ends on SIGTERM."""
    script = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait; done"
    layer = tar_of(
        {"bin/": b"", "bin/busybox": (root / "bin/busybox").read_bytes()},
        links={"bin/sh": "busybox", "bin/sleep": "busybox"},
        modes={"bin/busybox": 0o755},
    )
    return image_of([layer], {"Entrypoint": ["/bin/sh", "-c", script], "Env": ["PATH=/bin"]}, compressed=True)


def read_archive(path: Path) -> OciImage:
    """The only image of an OCI archive, or the one for this machine when its index names several."""
    with tarfile.open(path) as tar:
        blobs = {}
        index: dict[str, Any] = {}
        for entry in tar:
            content = tar.extractfile(entry)
            if content is None:
                continue
            if entry.name.removeprefix("./") == "index.json":
                index = json.load(content)
            elif "blobs/" in entry.name:
                algorithm, _, encoded = entry.name.rpartition("blobs/")[2].partition("/")
                blobs[f"{algorithm}:{encoded}"] = content.read()
    machine = platform.machine()
    while True:
        fitting = [
            each
            for each in index["manifests"]
            if each.get("platform", {}).get("architecture") in {None, ARCHITECTURE.get(machine, machine)}
        ]
        blob = blobs[fitting[0]["digest"]]
        document = json.loads(blob)
        if "manifests" not in document:
            break
        index = document
    named = {document["config"]["digest"], *(layer["digest"] for layer in document["layers"])}
    return OciImage(blob, {digest: blobs[digest] for digest in named})
