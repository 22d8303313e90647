"""A real checkpoint taken apart, for an attack to change one thing in it and put it together again.

CRIU images are decoded with the product's own messages, which keep the fields they do not know, so everything that an
attack leaves alone stays as CRIU wrote it.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast

from google.protobuf.message import Message

from shared.criu import criu_pb2 as pb
from shared.criu.images import Kind, header, join, split
from tests.support.checkpoints import Member, innermost, member, tar_of_members

_MESSAGES: Final[dict[Kind, type[Message]]] = {
    Kind.INVENTORY: pb.InventoryEntry,
    Kind.PSTREE: pb.PstreeEntry,
    Kind.CORE: pb.CoreEntry,
    Kind.IDS: pb.TaskKobjIdsEntry,
    Kind.MM: pb.MmEntry,
    Kind.FS: pb.FsEntry,
    Kind.FDINFO: pb.FdinfoEntry,
    Kind.FILES: pb.FileEntry,
    Kind.MNTS: pb.MntEntry,
    Kind.UTSNS: pb.UtsnsEntry,
    Kind.IPC_VAR: pb.IpcVarEntry,
    Kind.NETNS: pb.NetnsEntry,
    Kind.SECCOMP: pb.SeccompEntry,
    Kind.REMAP_FPATH: pb.RemapFilePathEntry,
}


def kind_of(name: str) -> Kind:
    """Which image a file of this name is; KeyError for none that is known."""
    stem = name.removesuffix(".img")
    for kind in _MESSAGES:
        start, numbered, _ = kind.value.removesuffix(".img").partition("%")
        if stem == start or (numbered and stem.startswith(start) and stem[len(start) :].isalnum()):
            return kind
    raise KeyError(name)


_ALIVE = 1
"""TaskState of criu/include/pid.h."""


class Forgery:
    """The files of an archive by name, CRIU's images as messages, and what the tar around them will look like."""

    def __init__(self, archive: Path) -> None:
        self.files: dict[str, bytes] = {}
        self.extra: list[Member] = []
        """Members put behind the files, as they are."""
        self.archive: Callable[[bytes], bytes] = lambda whole: whole
        """What happens to the finished archive."""
        self.annotations: dict[str, str] = {}
        """Of the image, beyond the one that marks a checkpoint."""
        self.rewritten: set[str] = set()
        """Files that were taken apart, to be put together again; those replaced whole are not among them."""
        self._images: dict[str, list[Message]] = {}
        with tarfile.open(archive) as tar:
            for entry in tar:
                if entry.isfile():
                    content = tar.extractfile(entry)
                    assert content is not None
                    self.files[entry.name] = content.read()

    # ---- CRIU's images ----

    def image(self, name: str) -> list[Any]:
        """The messages of an image, to be changed in place."""
        self.rewritten.add(f"checkpoint/{name}")
        if name not in self._images:
            kind = kind_of(name)
            pieces = split(self.files[f"checkpoint/{name}"], kind, name)
            self._images[name] = [_MESSAGES[kind].FromString(piece) for piece in pieces]
        return self._images[name]

    def new_image(self, name: str, *messages: Message) -> None:
        """An image that the dump did not have."""
        self.files[f"checkpoint/{name}"] = b""
        self._images[name] = list(messages)

    def raw(self, name: str, content: bytes) -> None:
        """A file among the images, as it is."""
        self._images.pop(name, None)
        self.files[f"checkpoint/{name}"] = content

    def image_names(self, start: str) -> list[str]:
        return [name[11:] for name in self.files if name.startswith(f"checkpoint/{start}")]

    @property
    def inventory(self) -> Any:
        return self.image("inventory.img")[0]

    @property
    def pids(self) -> list[int]:
        """Of the processes that live: a dump may be taken just when a child has ended."""
        return [entry.pid for entry in self._live()]

    def _live(self) -> Iterator[Any]:
        return (entry for entry in self.image("pstree.img") if self.core(entry.pid).tc.task_state == _ALIVE)

    def core(self, tid: int = 1) -> Any:
        return self.image(f"core-{tid}.img")[0]

    def cores(self) -> Iterator[Any]:
        for entry in self._live():
            for tid in entry.threads:
                yield self.core(tid)

    def creds(self) -> Iterator[Any]:
        """Credentials of every thread."""
        for core in self.cores():
            yield core.thread_core.creds

    def ids(self, pid: int = 1) -> Any:
        return self.image(f"ids-{pid}.img")[0]

    def every_ids(self) -> Iterator[Any]:
        for pid in self.pids:
            yield self.ids(pid)

    @property
    def opened(self) -> list[Any]:
        return self.image("files.img")

    @property
    def mounts(self) -> list[Any]:
        return self.image(f"mountpoints-{self.ids().mnt_ns_id}.img")

    def mount(self, path: str) -> Any:
        return next(entry for entry in self.mounts if entry.mountpoint == path.encode())

    def drop_mount(self, path: str) -> None:
        self.mounts.remove(self.mount(path))

    def add_mount(self, path: str, like: str = "/dev/mqueue", /, **fields: Any) -> Any:
        """One more mount, a copy of the one at ``like`` in all but ``fields``."""
        entry = pb.MntEntry()
        entry.CopyFrom(self.mount(like))
        entry.mnt_id = max(each.mnt_id for each in self.mounts) + 1
        entry.mountpoint = path.encode()
        entry.parent_mnt_id = self.mount("/").mnt_id
        for name, value in fields.items():
            setattr(entry, name, value)
        self.mounts.insert(0, entry)
        return entry

    def open_file(self, entry: Any, descriptor: int = 77) -> None:
        """Gives the first process one more descriptor."""
        table = f"fdinfo-{self.ids().files_id}.img"
        self.opened.append(entry)
        self.image(table).append(pb.FdinfoEntry(id=entry.id, flags=0, type=entry.type, fd=descriptor))

    def open_path(
        self, path: str, mode: int | None = 0o100644, flags: int = 0, descriptor: int = 77, **more: Any
    ) -> Any:
        """Gives the first process a file opened by its path."""
        number = 1000 + len(self.opened)
        reg = pb.RegFileEntry()
        reg.CopyFrom(next(each.reg for each in self.opened if each.type == 1))
        for field in ("mode", "size"):
            reg.ClearField(field)  # type: ignore[arg-type]
        reg.id, reg.flags, reg.name, reg.mnt_id = number, flags, path.encode(), innermost(self.mounts, path).mnt_id
        if mode is not None:
            reg.mode = mode
        for name, value in more.items():
            setattr(reg, name, value)
        entry = pb.FileEntry(type=1, id=number, reg=reg)
        self.open_file(entry, descriptor)
        return entry

    # ---- tar archives inside ----

    def tmpfs(self, path: str = "/dev", members: list[Member] | None = None, raw: bytes | None = None) -> None:
        """Puts more members into what a tmpfs held, or replaces its archive."""
        name = f"checkpoint/tmpfs-dev-{self.mount(path).root_dev}.tar.gz.img"
        self.rewritten.add(name)
        whole = gzip.decompress(self.files[name]) if raw is None else raw
        self.files[name] = gzip.compress(with_members(whole, members or []), mtime=0)

    def diff(self, members: list[Member]) -> None:
        """Puts more members into the rootfs diff."""
        self.rewritten.add("rootfs-diff.tar")
        whole = with_members(gzip.decompress(self.files["rootfs-diff.tar"]), members)
        self.files["rootfs-diff.tar"] = gzip.compress(whole, mtime=0)

    # ---- metadata ----

    def json(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        self.rewritten.add(name)
        document = json.loads(self.files[name])
        change(document)
        self.files[name] = json.dumps(document).encode()

    # ---- the result ----

    def contents(self) -> dict[str, bytes]:
        found = dict(self.files)
        for name, messages in self._images.items():
            found[f"checkpoint/{name}"] = join(kind_of(name), messages)
        return found

    def tar(self) -> bytes:
        entries = [member(f"{folder}/", kind=tarfile.DIRTYPE) for folder in ("checkpoint",)]
        entries += [member(name, content) for name, content in self.contents().items() if content is not None]
        return self.archive(tar_of_members([*entries, *self.extra]))


def with_members(archive: bytes, members: list[Member]) -> bytes:
    """The tar with these members behind its own."""
    out = io.BytesIO(archive)
    with tarfile.open(fileobj=out, mode="a") as tar:
        for entry, content in members:
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def messages_of(name: str, *messages: Message) -> bytes:
    """An image of a kind that the product does not read, by its magic number."""
    pieces = [header(name)]
    for message in messages:
        serialized = cast(bytes, message.SerializePartialToString())
        pieces += [struct.pack("<I", len(serialized)), serialized]
    return b"".join(pieces)
