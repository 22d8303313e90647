"""OCI archives: an image layout in one tar file, read and written. Source: image-spec image-layout.md."""

from __future__ import annotations

import os
import secrets
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from kubectl_restore.image.destination import Origin, Written, base_label
from kubectl_restore.image.images import Image
from kubectl_restore.image.layers import Layer
from kubectl_restore.image.layout import (
    INDEX_FILE,
    LAYOUT_FILE,
    LAYOUT_MARK,
    blob_path,
    check_blob,
    index_entry,
    new_index,
    read_blob,
    read_index,
)
from kubectl_restore.image.measure import Ahead, Measured, Measurement
from kubectl_restore.image.progress import Progress
from kubectl_restore.image.source import FileRange, Literal, Source, Stream
from shared import oci
from shared.archive import PlainStream
from shared.errors import CheckpointInvalid, RestoreError
from shared.tar import BLOCK_BYTES, IMAGE, MemberWalk

_UNKNOWN: Final = "sha256:" + "0" * 64


class ArchiveImages:
    """The images of an OCI archive; it must be a plain tar, because blobs are read in place."""

    def __init__(self, path: Path) -> None:
        self.place = str(path)
        whole = FileRange.whole(path)
        try:
            with path.open("rb") as file:
                walk = MemberWalk(PlainStream(file.fileno()), str(path), IMAGE)
                members = [member for member in walk.members() if member.kind == "file"]
        except (CheckpointInvalid, OSError) as error:
            raise RestoreError("LayoutInvalid", f"{path} is no plain OCI archive: {error}") from error
        self._parts = {member.name: whole.part(member.offset, member.size) for member in members}
        if LAYOUT_FILE not in self._parts or INDEX_FILE not in self._parts:
            raise RestoreError("LayoutInvalid", f"{path} is no OCI archive: it has no {LAYOUT_FILE} and {INDEX_FILE}")
        self.index = read_index(self._parts[INDEX_FILE], self.place)

    def document(self, target: str) -> bytes:
        return read_blob(self._part(target), target, self.place)

    def blob(self, descriptor: oci.Descriptor) -> Source:
        return self._part(descriptor.digest)

    def _part(self, digest: str) -> FileRange:
        if (part := self._parts.get(blob_path(digest))) is None:
            raise RestoreError("ImageInvalid", f"{self.place} has no blob {digest}")
        return part


class ArchiveDestination:
    """Writes an OCI archive in one pass: a blob's header goes out blank, and is filled in at its end.

    The file appears under its name when it is complete, replacing what was there; only its owner may read it.
    """

    def __init__(self, path: Path, reference: oci.Reference, progress: Progress) -> None:
        self._path = path
        self._reference = reference
        self._progress = progress
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        self._written: set[str] = set()

    def __enter__(self) -> Self:
        with self._writing():
            if self._path.is_dir():
                raise RestoreError("ArchiveUnwritable", f"{self._path} is a directory; name the file to write")
            descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._file: IO[bytes] = os.fdopen(descriptor, "wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._discard()

    def write(self, layer: Layer) -> Written:
        measured = self._store(layer.source, layer.created_by, layer.measurement())
        return Written(oci.Descriptor(layer.media_type, measured.digest, measured.size), measured.diff_id)

    def copy(self, descriptor: oci.Descriptor, image: Image) -> None:
        if descriptor.digest not in self._written:
            measured = self._store(image.images.blob(descriptor), base_label(descriptor), Measurement())
            check_blob(measured, descriptor, image.images.place)

    def origin(self, descriptor: oci.Descriptor, image: Image) -> Origin:
        return "copied"

    def finish(self, config: bytes, manifest: bytes) -> None:
        for content in (config, manifest):
            self._store(Literal(content), "manifest", Measurement())
        index = oci.encode(new_index(index_entry(self._reference, manifest)))
        with self._writing():
            for name, content in ((LAYOUT_FILE, LAYOUT_MARK), (INDEX_FILE, index)):
                self._file.write(_header(name, len(content)) + content + bytes(-len(content) % BLOCK_BYTES))
            self._file.write(bytes(2 * BLOCK_BYTES))
            self._file.close()
            self._temporary.replace(self._path)

    def _store(self, source: Stream, label: str, measuring: AbstractContextManager[Measurement | Ahead]) -> Measured:
        with self._writing(), measuring as measurement:
            start = self._file.tell()
            self._file.write(_header(blob_path(_UNKNOWN), 0))
            for piece in measurement.tee(self._progress.track(label, source.size, source.pieces())):
                self._file.write(piece)
            measured = measurement.result()
            self._file.write(bytes(-measured.size % BLOCK_BYTES))
            end = self._file.tell()
            self._file.seek(start)
            if measured.digest in self._written:
                self._file.truncate()
            else:
                self._file.write(_header(blob_path(measured.digest), measured.size))
                self._file.seek(end)
                self._written.add(measured.digest)
        return measured

    def _discard(self) -> None:
        try:
            self._file.close()
        except OSError:
            pass  # the disk is full; what is in the buffer is not wanted any more
        finally:
            self._temporary.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RestoreError("ArchiveUnwritable", f"cannot write {self._path}: {error.strerror}") from error


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    # Of one length whatever the size (above 8 GiB in base 256), so that it can be filled in later.
    return entry.tobuf(tarfile.GNU_FORMAT)
