"""Looks up files in a container's root as a restore would put it together: layers from the top, one pass each.

Sources: OCI image-spec layer.md (whiteouts: ``.wh.<name>``, opaque: ``.wh..wh..opq``). Layers are untrusted; of a file
only its first bytes are kept, and only for as long as they are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kubectl_restore.image.images import Image
from kubectl_restore.image.source import Literal, Opened, Source
from shared.archive import CheckpointFiles
from shared.compression import Compression, Decompressed, sniff
from shared.elf import HEAD_BYTES, read_elf
from shared.metadata import Checkpoint
from shared.preflight.files import Found
from shared.special_files import SpecialFile, special_files
from shared.tar import IMAGE, MemberWalk, TarMember, TarStream

LAYER_BYTES_MAX: Final = 1 << 40
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class Layer:
    name: str
    """In sentences."""
    source: Source
    deleted: tuple[str, ...] = ()
    """Absolute paths that are gone once the layer lies on those below, beside its own whiteouts."""


def layers_of(files: CheckpointFiles, checkpoint: Checkpoint, base: Image) -> list[Layer]:
    """Top first: what the container had changed, then its base image."""
    found = []
    if checkpoint.rootfs_diff or checkpoint.deleted_files:
        found.append(_diff(files, checkpoint))
    return found + image_layers(base, len(base.manifest.layers))


def image_layers(image: Image, count: int) -> list[Layer]:
    """The lowest ``count`` layers of an image, top first."""
    kept = reversed(image.manifest.layers[:count])
    return [Layer(f"layer {layer.digest} of {image.name}", image.images.blob(layer)) for layer in kept]


def special_in_diff(files: CheckpointFiles, checkpoint: Checkpoint) -> tuple[SpecialFile, ...]:
    """Device nodes and setuid programs that the container had made; raises CheckpointInvalid."""
    if checkpoint.rootfs_diff is None:
        return ()
    layer = _diff(files, checkpoint)
    stream = _stream(layer)
    try:
        found = special_files(
            stream, layer.name, "", limit_bytes=LAYER_BYTES_MAX, too_large="RootfsDiffTooLarge", links=False
        )
        return tuple(found)
    finally:
        stream.close()


def _diff(files: CheckpointFiles, checkpoint: Checkpoint) -> Layer:
    name = checkpoint.rootfs_diff
    if name is None:
        return Layer("deleted.files", Literal(bytes(1024)), checkpoint.deleted_files)
    source = Opened(name, files.size(name), lambda: files.open(name))
    return Layer(f"{name} of {files.path}", source, checkpoint.deleted_files)


def look_up(layers: Sequence[Layer], paths: Sequence[str]) -> dict[str, Found | None]:
    """What each absolute path is; None where it is nothing.

    Raises CheckpointInvalid, and what reading a layer raises.
    """
    wanted = {path.strip("/"): path for path in paths}
    found: dict[str, Found | None] = {}
    open_names = {name for name in wanted if name}
    for layer in layers:
        if not open_names:
            break
        here = _Pass(open_names)
        here.run(layer)
        while missing := here.unresolved():
            again = _Pass(missing)
            again.run(layer)
            here.resolve(again.found, missing)
        hidden = {path.strip("/") for path in layer.deleted} | here.whiteouts
        for name in sorted(open_names):
            above = _with_parents(name)
            if name in here.found and name not in {path.strip("/") for path in layer.deleted}:
                found[name] = here.found[name]
            elif hidden.intersection(above) or here.opaque.intersection(above[1:]) or here.covers(above[1:]):
                found[name] = None
            else:
                continue
            open_names.discard(name)
    return {path: Found("directory", 0, None, None) if not name else found.get(name) for name, path in wanted.items()}


def _with_parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]


class _Pass:
    """One pass over a layer for the files of these names."""

    def __init__(self, names: set[str]) -> None:
        self._names = set(names)
        self._above = {parent for name in names for parent in _with_parents(name)}
        self.found: dict[str, Found] = {}
        self.whiteouts: set[str] = set()
        self.opaque: set[str] = set()
        self._links: dict[str, str] = {}
        self._not_folders: set[str] = set()

    def run(self, layer: Layer) -> None:
        stream = _stream(layer)
        walk = MemberWalk(stream, layer.name, IMAGE)
        try:
            for member in walk.members():
                self._see(member, walk.start)
        finally:
            stream.close()

    def unresolved(self) -> set[str]:
        """Targets of hard links that stood before, or that nobody asked for."""
        return {target for target in self._links.values() if target not in self.found}

    def resolve(self, more: dict[str, Found], asked: set[str]) -> None:
        self.found.update(more)
        for name, target in list(self._links.items()):
            if target in self.found:
                self.found[name] = self.found[target]
            if target in self.found or target in asked:
                del self._links[name]

    def covers(self, parents: Sequence[str]) -> bool:
        """Whether a parent is no folder here, so that what lies below it in lower layers is out of reach."""
        return bool(self._not_folders.intersection(parents))

    def _see(self, member: TarMember, start: Callable[[int], bytes]) -> None:
        folder, _, last = member.name.rpartition("/")
        for parent in _with_parents(folder):
            # A folder need not have a member of its own.
            if parent in self._names and parent not in self.found and not last.startswith(_WHITEOUT):
                self.found[parent] = Found("directory", 0, None, None)
        if last == _OPAQUE:
            self.opaque.add(folder)
        elif last.startswith(_WHITEOUT):
            hidden = last.removeprefix(_WHITEOUT)
            self.whiteouts.add(f"{folder}/{hidden}" if folder else hidden)
        elif member.name in self._above:
            if member.kind != "directory":
                self._not_folders.add(member.name)
            if member.name not in self._names:
                return
            if member.kind == "hard link":
                self._links[member.name] = member.target.removeprefix("./").strip("/")
                return
            elf = read_elf(start(HEAD_BYTES)) if member.kind == "file" else None
            self.found[member.name] = Found(member.kind, member.size, member.mode, elf)


class _LayerStream(TarStream, Protocol):
    def close(self) -> None: ...


def _stream(layer: Layer) -> _LayerStream:
    pieces = _Pieces(layer.source.pieces())
    compression = sniff(pieces.peek(4))
    if compression is Compression.NONE:
        return pieces
    return Decompressed(pieces, compression, layer.name, limit_bytes=LAYER_BYTES_MAX)


class _Pieces:
    """A source's bytes, forward only."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._ready = b""

    def peek(self, size: int) -> bytes:
        while len(self._ready) < size and (piece := next(self._pieces, b"")):
            self._ready += piece
        return self._ready[:size]

    def read(self, size: int, /) -> bytes:
        if not self._ready:
            self._ready = next(self._pieces, b"")
        found, self._ready = self._ready[:size], self._ready[size:]
        return found

    def read_exactly(self, size: int) -> bytes:
        parts = []
        while size and (part := self.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def skip(self, size: int) -> int:
        left = size
        while left and (part := self.read(left)):
            left -= len(part)
        return size - left

    def close(self) -> None:
        close = getattr(self._pieces, "close", None)
        if close:
            close()
