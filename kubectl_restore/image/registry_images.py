"""Images in a registry, as a place to read a base image from and as the place a checkpoint image goes to."""

from __future__ import annotations

import io
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

import urllib3
from urllib3 import exceptions

from kubectl_restore.image.access import Access
from kubectl_restore.image.destination import Origin, Written, base_label
from kubectl_restore.image.images import Image
from kubectl_restore.image.layers import Layer
from kubectl_restore.image.layout import check_blob
from kubectl_restore.image.measure import Measured, Measurement
from kubectl_restore.image.progress import Progress
from kubectl_restore.image.registry import Registry, read_answer
from kubectl_restore.image.source import Literal, Opened, Source, Stream
from kubectl_restore.image.transport import Transport
from kubectl_restore.image.upload import Upload
from shared import oci
from shared.errors import RestoreError, Unavailable

_MANIFEST_TIMEOUT_S: Final = 120.0


class RegistryImages:
    """The images of one repository."""

    def __init__(self, reference: oci.Reference, access: Access) -> None:
        self.registry = Registry(reference.registry, reference.repository, access, push=False)
        self.place = self.registry.place

    def document(self, target: str) -> bytes:
        """Raises RestoreError("ImageInvalid") when the registry answers with something of another digest."""
        headers = {"Accept": ", ".join(oci.ACCEPTED_MANIFESTS)}
        content = self.registry.request(
            "GET", self.registry.url(f"manifests/{target}"), headers=headers, expect=(200,)
        ).body
        if oci.is_digest(target) and not oci.matches(content, target):
            raise RestoreError("ImageInvalid", f"{self.place} answered for {target} with something else")
        return content

    def blob(self, descriptor: oci.Descriptor) -> Source:
        return Opened(f"{descriptor.digest} of {self.place}", descriptor.size, lambda: self._open(descriptor))

    def _open(self, descriptor: oci.Descriptor) -> BinaryIO:
        response = self.registry.open("GET", self.registry.url(f"blobs/{descriptor.digest}"))
        if response.status != 200:
            raise self.registry.refusal(read_answer(response, self.registry.transport))
        return cast(BinaryIO, _Download(response, self.registry.transport))


class RegistryDestination:
    """Pushes into one repository; layers of a base image in the same registry are mounted, not sent."""

    def __init__(
        self, reference: oci.Reference, access: Access, progress: Progress, *, base: RegistryImages | None
    ) -> None:
        shared = base.registry if base and base.registry.host == reference.registry else None
        self._mount_from = shared.repository if shared else None
        self._registry = Registry(
            reference.registry,
            reference.repository,
            access,
            push=True,
            reads=(shared.repository,) if shared else (),
        )
        self._reference = reference
        self._progress = progress

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to take back: an upload cancels itself, and blobs no manifest names are the registry's to collect."""

    def write(self, layer: Layer) -> Written:
        measured = self._upload(layer.source, layer.fresh_measurement(), layer.created_by)
        return Written(oci.Descriptor(layer.media_type, measured.digest, measured.size), measured.diff_id)

    def copy(self, descriptor: oci.Descriptor, image: Image) -> None:
        if self._registry.has(descriptor.digest):
            return
        session = self._mount(descriptor.digest) if self._mounts(image) else ""
        if session is not None:
            measured = self._upload(image.images.blob(descriptor), Measurement(), base_label(descriptor), session)
            check_blob(measured, descriptor, image.images.place)

    def origin(self, descriptor: oci.Descriptor, image: Image) -> Origin:
        if self._registry.has(descriptor.digest):
            return "there"
        return "mounted" if self._mounts(image) else "copied"

    def finish(self, config: bytes, manifest: bytes) -> None:
        if not self._registry.has(oci.digest_of(config)):
            self._upload(Literal(config), Measurement(), "config")
        url = self._registry.url(f"manifests/{self._reference.target}")
        headers = {"Content-Type": oci.MANIFEST}
        answer = self._registry.request(
            "PUT", url, headers=headers, body=manifest, expect=(201,), read_timeout_s=_MANIFEST_TIMEOUT_S
        )
        wanted = oci.digest_of(manifest)
        if (stored := answer.headers.get("Docker-Content-Digest", wanted)) != wanted:
            raise RestoreError("RegistryRefused", f"{self._registry.place} stored {stored} instead of {wanted}")

    def _mounts(self, image: Image) -> bool:
        return self._mount_from is not None and isinstance(image.images, RegistryImages)

    def _mount(self, digest: str) -> str | None:
        """None when the blob was mounted, else the session for uploading it (empty: start one)."""
        assert self._mount_from
        url = self._registry.url("blobs/uploads/", mount=digest, **{"from": self._mount_from})
        answer = self._registry.request("POST", url, headers={"Content-Length": "0"}, expect=(201, 202))
        return None if answer.status == 201 else self._registry.absolute(url, answer.headers.get("Location", ""))

    def _upload(self, source: Stream, measuring: Measurement, label: str, session: str = "") -> Measured:
        with (
            measuring as measurement,
            Upload(self._registry, source, label, self._progress, session) as upload,
        ):
            return upload.send(measurement)


class _Download(io.RawIOBase):
    """A blob being downloaded; failures of the network are Unavailable."""

    def __init__(self, response: urllib3.BaseHTTPResponse, transport: Transport) -> None:
        self._response = response
        self._transport = transport

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            piece = self._response.read(len(buffer))
        except exceptions.HTTPError as error:
            failure = self._transport.failure(error)
            raise Unavailable("BaseInterrupted", str(failure)) from error
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._response.close()
            self._response.release_conn()
        super().close()
