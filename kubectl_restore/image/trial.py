"""What a build would give and cost, without building: sizes and times measured on the checkpoint itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from kubectl_restore.image.build import Prepared
from kubectl_restore.image.compressing import BLOCK_BYTES, Compressing
from kubectl_restore.image.destination import Destination, Origin
from kubectl_restore.image.layers import Layer
from kubectl_restore.image.source import PIECE_BYTES, Literal, Stream
from shared.compression import Compression
from shared.contract import ImageFormat

SAMPLE_BYTES: Final = 256 << 20
"""Of a larger plain archive only as much is compressed, in blocks spread evenly over it."""


@dataclass(frozen=True)
class Cost:
    """Of one compression of the layers that the checkpoint adds."""

    compression: Compression
    size: int
    seconds: float
    """To read, compress and hash them on this machine; writing and sending come on top."""


@dataclass(frozen=True)
class BaseLayer:
    digest: str
    size: int
    origin: Origin


@dataclass(frozen=True)
class Trial:
    image_format: ImageFormat
    base: str | None
    base_digest: str | None
    base_layers: list[BaseLayer]
    measured_bytes: int
    total_bytes: int
    """Of the layers that the checkpoint adds, as they are in it."""
    costs: list[Cost]
    """Extrapolated where not all was measured."""

    @property
    def estimated(self) -> bool:
        return self.measured_bytes < self.total_bytes


def trial(ready: Prepared, destination: Destination | None) -> Trial:
    """Asks ``destination`` where the base image's layers would come from, and compresses in every way into nothing.

    Raises what reading the checkpoint and asking the destination's registry raise.
    """
    base = ready.base
    below = [
        BaseLayer(descriptor.digest, descriptor.size, destination.origin(descriptor, base))
        for descriptor, _ in ready.below
        if destination and base
    ]
    layers = ready.layers()
    samples = [_sampled(layer) for layer in layers] if ready.content.seekable else layers
    for layer in samples if ready.content.seekable else ():
        for _ in layer.source.pieces():
            pass  # from the disk into memory, so that no compression pays for it
    for compression in (Compression.GZIP, Compression.ZSTD):
        list(Compressing(Literal(b""), compression).pieces())  # loads the library
    return Trial(
        ready.image_format,
        base.name if base else None,
        base.manifest_digest if base else None,
        below,
        sum(map(_size, samples)),
        sum(map(_size, layers)),
        [_cost(layers, samples, each) for each in Compression],
    )


def _cost(layers: list[Layer], samples: list[Layer], compression: Compression) -> Cost:
    size = seconds = 0.0
    for layer, sample in zip(layers, samples, strict=True):
        began = time.perf_counter()
        packed = sample.compressed(compression)
        with packed.fresh_measurement() as measurement:
            for _ in measurement.tee(packed.source.pieces()):
                pass
            measured = measurement.result()
        scale = _size(layer) / max(_size(sample), 1)
        size += measured.size * scale
        seconds += (time.perf_counter() - began) * scale
    return Cost(compression, round(size), seconds)


def _sampled(layer: Layer) -> Layer:
    size = _size(layer)
    if layer.compression is not Compression.NONE or size <= SAMPLE_BYTES:
        return layer
    return replace(layer, source=_Sample(layer.source, size))


def _size(layer: Layer) -> int:
    """As it is in the checkpoint, where every size is known."""
    return layer.source.size or 0


@dataclass(frozen=True)
class _Sample:
    """Blocks of ``whole`` at even distances, the first and the last among them."""

    whole: Stream
    whole_bytes: int

    @property
    def size(self) -> int:
        return SAMPLE_BYTES

    def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        count = SAMPLE_BYTES // BLOCK_BYTES
        for number in range(offset // BLOCK_BYTES, count):
            left = BLOCK_BYTES
            for piece in self.whole.pieces(number * (self.whole_bytes - BLOCK_BYTES) // (count - 1), piece_bytes):
                yield piece[:left]
                left -= len(piece)
                if left <= 0:
                    break
