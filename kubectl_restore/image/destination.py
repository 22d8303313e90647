"""Where an image goes: a registry, an OCI layout directory or an OCI archive, written blob by blob in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from kubectl_restore.image.images import Image
from kubectl_restore.image.layers import Layer
from shared import oci


@dataclass(frozen=True)
class Written:
    descriptor: oci.Descriptor
    diff_id: str


def base_label(descriptor: oci.Descriptor) -> str:
    """What the progress of copying a layer is called."""
    return f"base layer {descriptor.digest.partition(':')[2][:12]}"


Origin = Literal["there", "mounted", "copied"]
"""How a base image's layer gets somewhere: it is there, its registry takes it from another repository, or neither."""


class Destination(Protocol):
    """A context manager: leaving it by an error takes back everything that was written."""

    def write(self, layer: Layer) -> Written:
        """Writes a layer whose digest is known only when its last byte is out."""

    def copy(self, descriptor: oci.Descriptor, image: Image) -> None:
        """Brings one of ``image``'s layers here unless it is here already."""

    def origin(self, descriptor: oci.Descriptor, image: Image) -> Origin:
        """How ``copy`` would bring it here; changes nothing, and may be asked before the context is entered."""

    def finish(self, config: bytes, manifest: bytes) -> None:
        """Writes config and manifest, and gives the image its name."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
