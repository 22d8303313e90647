"""A sound checkpoint in memory with one file replaced by the input, read by everything that reads checkpoints."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from kubectl_restore.check.contents import check_contents
from kubectl_restore.inspect.gather import gather
from nri_plugin.restore.oldlog import log_lines
from shared.checkpoint_files import CheckpointFiles
from shared.criu import criu_pb2 as pb
from shared.criu.dump_host import read_dump_host
from shared.criu.images import header
from shared.criu.tmpfs import read_tmpfs
from shared.errors import CheckpointInvalid, Refused, RestoreError
from shared.judge import NodeSide, PodIdentity, check_settings, judge, read, refusals
from shared.judge.mounts import check_mounts
from shared.metadata import read_checkpoint
from shared.preflight.cpu import dump_needs
from shared.preflight.files import expected_files
from shared.spec import RuntimeSpec, parse_spec
from tests.fuzz.target import Target, attempt, check_sentence
from tests.support.checkpoints import SyntheticDump, containerd, crio

IDENTITY = PodIdentity(group_fixed=False, groups_fixed=False)
NODE = NodeSide("6.18.0", "rw,nsdelegate")
RAW = 0x80
"""Set in the input's first byte: the rest is a whole image. Otherwise it is one message, framed as CRIU does."""
METADATA = (
    "config.dump",
    "spec.dump",
    "status.dump",
    "deleted.files",
    "dump.log",
    "checkpoint/descriptors.json",
    "stats-dump",
    "container.log",
)


class MemoryFiles(CheckpointFiles):
    """The files of a checkpoint, without an archive around them."""

    path = Path("checkpoint.tar")

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def names(self) -> tuple[str, ...]:
        return tuple(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def size(self, name: str) -> int:
        if name not in self._files:
            raise self._missing(name)
        return len(self._files[name])

    def open(self, name: str) -> BinaryIO:
        if name not in self._files:
            raise self._missing(name)
        return io.BytesIO(self._files[name])

    def close(self) -> None:
        pass


@lru_cache(maxsize=1)
def sound() -> dict[str, bytes]:
    dump = SyntheticDump.of_processes(2)
    dump.images["filelocks.img"] = [pb.FileLockEntry(flag=1, type=1, pid=1, fd=0)]
    dump.images["remap-fpath.img"] = [pb.RemapFilePathEntry(orig_id=1, remap_id=1, remap_type=1)]
    dump.images["seccomp.img"] = [pb.SeccompEntry(seccomp_filters=[pb.SeccompFilter(filter=ALLOW, flags=0)])]
    for pid in (1, 2):
        core = dump.images[f"core-{pid}.img"][0]
        core.thread_core.seccomp_mode, core.thread_core.seccomp_filter = 2, 0  # type: ignore[attr-defined]
    dump.images["tty-info.img"] = [pb.TtyInfoEntry(id=2012, type=4, rdev=0x500)]
    dump.images["memfd.img"] = [pb.MemfdInodeEntry(name=b"a", size=4096, shmid=1, inode_id=1)]
    dump.images["cpuinfo.img"] = [pb.CpuinfoEntry(x86_entry=[pb.CpuinfoX86Entry(capability=[1] * 12, xsave_size=832)])]
    dump.images["pagemap-shmem-1.img"] = [
        pb.PagemapHead(pages_id=9),
        pb.PagemapEntry(vaddr=0, compat_nr_pages=0, flags=4, nr_pages=1),
    ]
    dump.raw["pages-9.img"] = bytes(4096)
    files = containerd(dump)
    files["checkpoint/ghost-file-1.img"] = GHOST
    files["stats-dump"] = b""
    files["deleted.files"] = crio()["deleted.files"]
    return files


_GHOST = pb.GhostFileEntry(uid=0, gid=0, mode=0o100600).SerializeToString()
GHOST = header("ghost-file-%.img") + struct.pack("<I", len(_GHOST)) + _GHOST
ALLOW = struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000)


@lru_cache(maxsize=1)
def _images() -> list[str]:
    return sorted(
        name for name in sound() if name.startswith("checkpoint/") and name.endswith(".img") and "pages-" not in name
    )


@lru_cache(maxsize=1)
def _live() -> RuntimeSpec:
    return parse_spec(sound()["spec.dump"], file="config.json")


def read_everything(files: CheckpointFiles) -> None:
    """Every reader of a checkpoint, then every rule over what it read."""
    try:
        checkpoint = read_checkpoint(files)
        attempt(lambda: check_mounts(checkpoint.spec.mounts, _live().mounts), (RestoreError,))
        attempt(lambda: check_settings(checkpoint.spec, _live(), IDENTITY), (RestoreError,))
        dump = read(files).dump
        special = read_tmpfs(files, dump.mounts)
        images = dump.source
        dump_needs(images, dump)
        expected_files(images, dump)
        list(check_contents(dump, checkpoint.spec))
        for refused in refusals(dump, checkpoint.spec, _live(), IDENTITY, special):
            check_sentence(refused)
        attempt(lambda: judge(dump, checkpoint.spec, _live(), IDENTITY, special, node=NODE), (RestoreError,))
    except (CheckpointInvalid, Refused) as error:
        check_sentence(error)
    attempt(lambda: gather(files, "checkpoint.tar"), (CheckpointInvalid,))
    read_dump_host(files)


def _image(content: bytes) -> None:
    if not content:
        return
    names = _images()
    name = names[(content[0] & ~RAW) % len(names)]
    files = dict(sound())
    if content[0] & RAW:
        files[name] = content[1:]
    else:
        start = files[name][: 4 if name.endswith("inventory.img") else 8]
        _, rest = _first(files[name][len(start) :])
        files[name] = start + struct.pack("<I", len(content) - 1) + content[1:] + rest
    read_everything(MemoryFiles(files))


def _first(framed: bytes) -> tuple[bytes, bytes]:
    """The first message of an image and what follows it."""
    if len(framed) < 4:
        return b"", b""
    (size,) = struct.unpack_from("<I", framed)
    return framed[4 : 4 + size], framed[4 + size :]


def _image_seeds() -> Iterator[bytes]:
    for number, name in enumerate(_images()):
        content = sound()[name]
        if len(content) > 2000:
            continue
        yield bytes([number | RAW]) + content
        yield bytes([number]) + _first(content[4 if name.endswith("inventory.img") else 8 :])[0]


def _metadata(content: bytes) -> None:
    if not content:
        return
    name = METADATA[content[0] % len(METADATA)]
    read_everything(MemoryFiles({**sound(), name: content[1:]}))


def _metadata_seeds() -> Iterator[bytes]:
    for number, name in enumerate(METADATA):
        for files in (sound(), crio()):
            if name in files:
                yield bytes([number]) + files[name]
    yield bytes([METADATA.index("stats-dump")]) + STATS


STATS = bytes.fromhex("1f2e5a5b0e0000000a0c08e80710d00f18b81720a01f")


def _log(content: bytes) -> None:
    checkpoint = read_checkpoint(MemoryFiles(sound()))
    for frozen_s, cap in ((None, 1 << 20), (0.05, 200)):
        lines = log_lines(
            MemoryFiles({"container.log": content}),
            "container.log",
            cap,
            asked_at=checkpoint.checkpointed_at,
            frozen_s=frozen_s,
        )
        assert len(lines) <= cap
        assert not lines or lines.endswith(b"\n")


def _log_seeds() -> Iterator[bytes]:
    yield b"2026-11-24T03:24:10.748166232Z stdout F 1\n2026-11-24T03:24:10.9+01:00 stderr P \xff\n"
    yield b"9999-12-31T23:59:59-14:00 stdout F 1\n0001-01-01T00:00:00+14:00 stdout F:x 1\nnone\n"


TARGETS = (
    Target("criu-image", _image, _image_seeds),
    Target("metadata", _metadata, _metadata_seeds),
    Target("container-log", _log, _log_seeds),
)
