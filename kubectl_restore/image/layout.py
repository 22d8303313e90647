"""OCI image layouts: a directory of blobs with an index, read and written. Source: image-spec image-layout.md."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from kubectl_restore.image.destination import Origin, Written, base_label
from kubectl_restore.image.images import Image
from kubectl_restore.image.layers import Layer
from kubectl_restore.image.measure import Ahead, Measured, Measurement
from kubectl_restore.image.progress import Progress
from kubectl_restore.image.source import FileRange, Literal, Source, Stream
from shared import oci
from shared.errors import RestoreError

LAYOUT_FILE: Final = "oci-layout"
INDEX_FILE: Final = "index.json"
LAYOUT_MARK: Final = b'{"imageLayoutVersion":"1.0.0"}'


def blob_path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def index_entry(reference: oci.Reference, manifest: bytes) -> dict[str, Any]:
    names = {oci.REF_NAME: str(reference), oci.CONTAINERD_IMAGE_NAME: str(reference)}
    return oci.Descriptor(oci.MANIFEST, oci.digest_of(manifest), len(manifest), names).as_json()


def new_index(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": list(entries)}


def check_blob(measured: Measured, descriptor: oci.Descriptor, place: str) -> None:
    """Raises RestoreError("ImageInvalid") when what was read is not what its descriptor says."""
    if (measured.digest, measured.size) != (descriptor.digest, descriptor.size):
        raise RestoreError("ImageInvalid", f"{place} gave {measured.digest} for the layer {descriptor.digest}")


class LayoutImages:
    """The images of a layout directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.place = str(path)
        if not (path / LAYOUT_FILE).is_file():
            raise RestoreError("LayoutInvalid", f"{path} is no OCI layout: it has no file {LAYOUT_FILE}")
        self.index = read_index(FileRange.whole(path / INDEX_FILE), self.place)

    def document(self, target: str) -> bytes:
        return read_blob(self._file(target), target, self.place)

    def blob(self, descriptor: oci.Descriptor) -> Source:
        return self._file(descriptor.digest)

    def _file(self, digest: str) -> FileRange:
        return FileRange.whole(self._path / blob_path(digest))


def read_index(source: Source, place: str) -> oci.Index:
    if source.size > oci.MAX_DOCUMENT_BYTES:
        raise RestoreError("LayoutInvalid", f"{INDEX_FILE} of {place} has {source.size} bytes, which no index has")
    document = oci.parse_document(b"".join(source.pieces()))
    if isinstance(document, oci.Manifest):
        raise RestoreError("LayoutInvalid", f"{INDEX_FILE} of {place} is no index")
    return document


def read_blob(source: Source, digest: str, place: str) -> bytes:
    """A manifest; raises RestoreError("ImageInvalid") when it is too large or has another digest."""
    content = b"".join(source.pieces()) if source.size <= oci.MAX_DOCUMENT_BYTES else b""
    if not oci.matches(content, digest):
        raise RestoreError("ImageInvalid", f"{place} has a damaged blob {digest}")
    return content


class LayoutDestination:
    """Adds an image to a layout directory, made when missing; one build at a time, by flock on the directory.

    New directories and blobs are readable by their owner only: they hold a process's memory.
    """

    def __init__(self, path: Path, reference: oci.Reference, progress: Progress) -> None:
        self._path = path
        self._reference = reference
        self._progress = progress
        self._made: list[Path] = []
        self._lock = -1

    def __enter__(self) -> Self:
        with _writing(self._path):
            try:
                self._prepare()
            except BaseException:
                self._take_back()
                if self._lock >= 0:
                    os.close(self._lock)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._take_back()
        os.close(self._lock)

    def write(self, layer: Layer) -> Written:
        measured = self._store(layer.source, layer.created_by, layer.measurement())
        return Written(oci.Descriptor(layer.media_type, measured.digest, measured.size), measured.diff_id)

    def copy(self, descriptor: oci.Descriptor, image: Image) -> None:
        if not (self._path / blob_path(descriptor.digest)).exists():
            measured = self._store(image.images.blob(descriptor), base_label(descriptor), Measurement())
            check_blob(measured, descriptor, image.images.place)

    def origin(self, descriptor: oci.Descriptor, image: Image) -> Origin:
        return "there" if (self._path / blob_path(descriptor.digest)).exists() else "copied"

    def finish(self, config: bytes, manifest: bytes) -> None:
        for content in (config, manifest):
            self._store(Literal(content), "manifest", Measurement())
        with _writing(self._path):
            index = self._path / INDEX_FILE
            document = _index_to_extend(index)
            kept = [entry for entry in document["manifests"] if not self._has_our_name(entry)]
            document["manifests"] = [*kept, index_entry(self._reference, manifest)]
            temporary = self._temporary()
            temporary.write_bytes(oci.encode(document))
            temporary.replace(index)

    def _prepare(self) -> None:
        self._make_directory(self._path)
        self._lock = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        mark = self._path / LAYOUT_FILE
        if not mark.exists():
            if any(self._path.iterdir()):
                raise RestoreError(
                    "LayoutInvalid", f"{self._path} is not empty and no OCI layout; name another directory"
                )
            self._made.append(mark)
            mark.write_bytes(LAYOUT_MARK)
            index = self._path / INDEX_FILE
            self._made.append(index)
            index.write_bytes(oci.encode(new_index()))
        _index_to_extend(self._path / INDEX_FILE)
        for directory in (self._path / "blobs", self._path / "blobs" / "sha256"):
            self._make_directory(directory)

    def _make_directory(self, path: Path) -> None:
        if not path.is_dir():
            path.mkdir(mode=0o700)
            self._made.append(path)

    def _temporary(self) -> Path:
        path = self._path / f".incoming-{secrets.token_hex(8)}"
        self._made.append(path)
        return path

    def _store(self, source: Stream, label: str, measuring: AbstractContextManager[Measurement | Ahead]) -> Measured:
        with _writing(self._path), measuring as measurement:
            temporary = self._temporary()
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                if isinstance(measurement, Ahead) and isinstance(source, FileRange):
                    for _ in measurement.tee(self._progress.track(label, source.size, source.copy_to(file))):
                        pass
                else:
                    for piece in measurement.tee(self._progress.track(label, source.size, source.pieces())):
                        file.write(piece)
            measured = measurement.result()
            final = self._path / blob_path(measured.digest)
            if final.exists():
                temporary.unlink()
            else:
                self._made.append(final)
                temporary.rename(final)
        return measured

    def _has_our_name(self, entry: object) -> bool:
        annotations = entry.get("annotations") if isinstance(entry, dict) else None
        return isinstance(annotations, dict) and str(self._reference) in (
            annotations.get(oci.CONTAINERD_IMAGE_NAME),
            annotations.get(oci.REF_NAME),
        )

    def _take_back(self) -> None:
        for path in reversed(self._made):
            with suppress(OSError):  # the failure that brought us here is the one to report
                path.rmdir() if path.is_dir() else path.unlink()


def _index_to_extend(path: Path) -> dict[str, Any]:
    """The index with every field it has, ours or not."""
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RestoreError("LayoutInvalid", f"{path} is not JSON; name another directory") from error
    if not isinstance(document, dict) or not isinstance(document.get("manifests"), list):
        raise RestoreError("LayoutInvalid", f"{path} is no OCI index; name another directory")
    return document


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RestoreError("LayoutUnwritable", f"cannot write the OCI layout {path}: {error.strerror}") from error
