"""A checkpoint of containerd's rewritten into the form other engines give theirs; the process images stay as they are.

Layouts: CRI-O internal/lib/checkpoint.go, Podman libpod/container_internal_common.go (exportCheckpoint).
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence

from tests.e2e.restoring import Taken

Rewrite = Callable[[dict[str, bytes]], None]
"""Changes the files of an archive, by name, in place."""


def rewritten(taken: Taken, rewrite: Rewrite) -> bytes:
    """The archive with its files changed; directories are only implied."""
    with tarfile.open(taken.archive) as tar:
        files = {}
        for entry in tar:
            content = tar.extractfile(entry)
            if content is not None:
                files[entry.name] = content.read()
    rewrite(files)
    return _tar(files)


def _tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        folder = tarfile.TarInfo("checkpoint")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        tar.addfile(folder)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def crio(config_digest: str) -> Rewrite:
    """As CRI-O writes it; ``config_digest`` is the base image's, which it records as the image's id."""

    def rewrite(files: dict[str, bytes]) -> None:
        _plain_diff(files)
        for name in ("status", "status.dump"):
            del files[name]
        files["io.kubernetes.cri-o.LogPath"] = files.pop("container.log")
        files["bind.mounts"] = b"[]"
        labels = json.dumps({"io.kubernetes.container.name": "counter", "io.kubernetes.pod.name": "own"})
        _manager(files, {"io.container.manager": "cri-o", "io.kubernetes.cri-o.Labels": labels})
        _config(files, {"rootfsImageRef": config_digest.removeprefix("sha256:"), "runtime": "runc"})

    return rewrite


def podman(config_digest: str) -> Rewrite:
    """As Podman exports it."""

    def rewrite(files: dict[str, bytes]) -> None:
        _plain_diff(files)
        for name in ("status", "status.dump"):
            del files[name]
        files["ctr.log"] = files.pop("container.log")
        files["network.status"] = b'{"podman": {"interfaces": {}}}'
        _manager(files, {"io.container.manager": "libpod"})
        changes = {"rootfsImageRef": None, "rootfsImageID": config_digest.removeprefix("sha256:"), "runtime": "runc"}
        _config(files, changes)

    return rewrite


def _plain_diff(files: dict[str, bytes]) -> None:
    """The diff uncompressed and without whiteouts; what they deleted goes into deleted.files."""
    deleted = []
    out = io.BytesIO()
    diff = io.BytesIO(gzip.decompress(files["rootfs-diff.tar"]))
    with tarfile.open(fileobj=diff) as old, tarfile.open(fileobj=out, mode="w") as new:
        for entry in old:
            parent, _, last = entry.name.rpartition("/")
            if last.startswith(".wh."):
                deleted.append(f"/{parent}/{last.removeprefix('.wh.')}")
            else:
                new.addfile(entry, old.extractfile(entry))
    files["rootfs-diff.tar"] = out.getvalue()
    files["deleted.files"] = json.dumps(deleted).encode()


def _manager(files: dict[str, bytes], annotations: Mapping[str, str]) -> None:
    spec = json.loads(files["spec.dump"])
    spec["annotations"] = dict(annotations)
    files["spec.dump"] = json.dumps(spec).encode()


def _config(files: dict[str, bytes], changes: Mapping[str, str | None]) -> None:
    config = {**json.loads(files["config.dump"]), **changes}
    files["config.dump"] = json.dumps({key: value for key, value in config.items() if value is not None}).encode()


def without_in_diff(path: str, *, extra: Mapping[str, bytes], links: Sequence[tarfile.TarInfo] = ()) -> Rewrite:
    """The rootfs diff without one file, and with others that were not there."""

    def rewrite(files: dict[str, bytes]) -> None:
        out = io.BytesIO()
        diff = io.BytesIO(gzip.decompress(files["rootfs-diff.tar"]))
        with tarfile.open(fileobj=diff) as old, tarfile.open(fileobj=out, mode="w") as new:
            for entry in old:
                if entry.name != path:
                    new.addfile(entry, old.extractfile(entry))
            for name, content in extra.items():
                made = tarfile.TarInfo(name)
                made.size = len(content)
                new.addfile(made, io.BytesIO(content))
            for link in links:
                new.addfile(link)
        files["rootfs-diff.tar"] = gzip.compress(out.getvalue())

    return rewrite
