"""Pipes and FIFOs, and what was in them.

CRIU makes pipes anew, and opens FIFOs by their path, as root; then it writes into them what they held, whatever the
descriptor may (criu/pipes.c restore_pipe_data, criu/fifo.c do_open_fifo). A pipe's number is its inode's, so two FIFOs
of different file systems may have the same one.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator
from typing import Final

from shared.criu.criu_pb2 import FileEntry, PipeDataEntry, RegFileEntry
from shared.criu.decode import damaged
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind, text
from shared.criu.raw_content import with_content
from shared.errors import Refused
from shared.judge.open_flags import flags_rule, id_rule, owner_rule
from shared.judge.regular_files import FIFO, PIPE, REGULAR, of_kind
from shared.judge.rules import Fields, Rules, bounded, free
from shared.judge.writing import ImageFile, Raw
from shared.spec import RuntimeSpec

_PIPE_BYTES: Final = 64 << 10
"""What a pipe holds unless somebody changed it (pipe(7))."""
PIPE_BYTES_MAX: Final = 1 << 20
"""fs.pipe-max-size unless somebody changed it: more takes CAP_SYS_RESOURCE."""
_SIZE_MAX: Final = 1 << 31
_U32: Final = struct.Struct("<I")

FIELDS: Final[Fields] = {
    "PipeEntry": {
        "id": id_rule(),
        "pipe_id": free("it tells which ends are of one pipe; those of the container's output are its own"),
        "flags": flags_rule("which end it is, and how it is opened"),
        "fown": owner_rule(),
    },
    "FifoEntry": {
        "id": id_rule(),
        "pipe_id": free("it tells which data is the FIFO's"),
        "regf_id": bounded("a FIFO among the regular files, judged as one"),
    },
    "PipeDataEntry": {
        "pipe_id": bounded("once in its image"),
        "handle_bytes": bounded("what follows in the image, and not more than the pipe holds"),
        "size": bounded("more than 1 MiB takes CAP_SYS_RESOURCE", lambda size: size <= _SIZE_MAX),
    },
}


def check_pipes(images: ImageDirectory) -> None:
    """Raises CheckpointInvalid("ImageDamaged") for a FIFO that is none, and for data of no pipe or more than it holds.

    A regular file of the FIFO's own number is what CRIU before 3.2 dumped (criu/fifo.c, open_fifo_fd).
    """
    name = images.path(Kind.FILES.file())
    fifos = of_kind(images, FIFO)
    regular = _regular(images) if fifos else {}
    for entry in fifos:
        file = regular.get(entry.fifo.regf_id) if entry.fifo.HasField("regf_id") else None
        if file is None or not stat.S_ISFIFO(file.mode):
            raise damaged(name, f"has the FIFO {entry.id}, whose file is missing or no FIFO")
    for kind in (Kind.PIPES_DATA, Kind.FIFO_DATA):
        numbers: set[int] = set()
        for data, _ in _data(images, kind):
            if data.pipe_id in numbers or data.handle_bytes > (data.size or _PIPE_BYTES):
                raise damaged(images.path(kind.file()), f"has pipe {data.pipe_id} twice, or more data than it holds")
            numbers.add(data.pipe_id)


def pipe_refusals(images: ImageDirectory, dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """FileExceeds for too large a pipe, and for data in a FIFO of a volume that no descriptor could have written."""
    held = {descriptor.file for descriptor in dump.descriptors}
    sizes = [data.size for kind in (Kind.PIPES_DATA, Kind.FIFO_DATA) for data, _ in _data(images, kind)]
    if sizes and max(sizes) > PIPE_BYTES_MAX and "CAP_SYS_RESOURCE" not in live.capabilities.bounding:
        yield Refused(
            "FileExceeds",
            f"the checkpoint has a pipe that holds {max(sizes)} bytes, which takes CAP_SYS_RESOURCE and the pod does "
            "not grant it; add it to the container's capabilities if that is meant",
        )
    volumes = {mount.id for mount in dump.mounts if mount.external is not None}
    filled = {data.pipe_id for data, _ in _data(images, Kind.FIFO_DATA) if data.handle_bytes}
    fifos = of_kind(images, FIFO)
    if not fifos:
        return
    regular = _regular(images)
    written = {
        (file.mnt_id, file.name)
        for entry in fifos
        if entry.id in held and (file := regular[entry.fifo.regf_id]).flags & os.O_ACCMODE != os.O_RDONLY
    }
    for entry in fifos:
        file = regular[entry.fifo.regf_id]
        if entry.fifo.pipe_id in filled and file.mnt_id in volumes and (file.mnt_id, file.name) not in written:
            yield Refused(
                "FileExceeds",
                f"the checkpoint has data in the FIFO {text(file.name, Kind.FILES.file())} of a volume, which no "
                "process of it has open for writing; take a new checkpoint when the data was read",
            )


def pipe_images(images: ImageDirectory, written: Callable[[FileEntry], bool], rules: Rules) -> Iterator[ImageFile]:
    """pipes-data.img and fifo-data.img, of pipes that ``written`` files are of. Raises Refused("FieldExceeds")."""
    pipes = {entry.pipe.pipe_id for entry in of_kind(images, PIPE) if written(entry)}
    fifos = {entry.fifo.pipe_id for entry in of_kind(images, FIFO) if written(entry)}
    for kind, numbers in ((Kind.PIPES_DATA, pipes), (Kind.FIFO_DATA, fifos)):
        name = kind.file()
        pieces: list[bytes | Raw] = [kind.header]
        for data, offset in _data(images, kind):
            if data.pipe_id in numbers:
                rules.apply(data, name)
                content = data.SerializeToString(deterministic=True)
                pieces.append(_U32.pack(len(content)) + content)
                if data.handle_bytes:
                    pieces.append(Raw(name, offset, data.handle_bytes))
        if len(pieces) > 1:
            yield ImageFile(name, pieces)


def _data(images: ImageDirectory, kind: Kind) -> list[tuple[PipeDataEntry, int]]:
    if kind.file() not in images:
        return []
    return images.placed(kind, lambda: with_content(images, kind, PipeDataEntry, lambda data: data.handle_bytes))


def _regular(images: ImageDirectory) -> dict[int, RegFileEntry]:
    return {entry.id: entry.reg for entry in of_kind(images, REGULAR)}
