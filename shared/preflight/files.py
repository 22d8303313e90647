"""Every file that the processes have open or mapped against the root they would be restored on.

CRIU opens each by its path and compares size and mode, and the build ID where it recorded one; with any difference the
restore fails (criu/files-reg.c, open_path, validate_file).
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shared.criu.criu_pb2 import FileEntry, RemapFilePathEntry
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind, path_text
from shared.criu.open_files import NOT_RECORDED
from shared.elf import ElfFacts
from shared.preflight.findings import Finding, finding, listed

LISTED_MAX: Final = 10
"""Findings of one code that are given one by one."""


@dataclass(frozen=True, slots=True)
class Expected:
    path: str
    size: int | None
    mode: int | None
    """st_mode."""
    build_id: str | None
    """Lower-case hexadecimal, padded to words of four bytes as CRIU stores it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at a path in the root that a restore would have."""

    kind: str
    """file, directory, symbolic link … as TarMember.kind."""
    size: int
    mode: int | None
    """Permission bits; None for the root, which gets those it had, and for a folder without a member of its own."""
    elf: ElfFacts | None
    target: str | None = None
    """Of a symbolic link, where that was read."""


def expected_files(images: ImageDirectory, dump: Dump) -> tuple[list[Expected], list[str]]:
    """What must be in the root file system, and paths on other mounts, which nobody can look at here.

    Files that were deleted come out of the dump itself.
    """
    name = images.path(Kind.FILES.file())
    roots = {mount.id for mount in dump.mounts if mount.mountpoint == "/"} | {NOT_RECORDED}
    external = {mount.id for mount in dump.mounts if mount.external is not None}
    remapped = set()
    if Kind.REMAP_FPATH.file() in images:
        remapped = {entry.orig_id for entry in images.entries(Kind.REMAP_FPATH, RemapFilePathEntry)}
    expected: dict[str, Expected] = {}
    elsewhere: dict[str, None] = {}
    for entry in images.entries(Kind.FILES, FileEntry):
        if not entry.HasField("reg") or entry.id in remapped or entry.reg.ext:
            continue
        reg = entry.reg
        path = path_text(reg.name, name, "path of an open file")
        mount = reg.mnt_id if reg.HasField("mnt_id") else NOT_RECORDED
        mode = reg.mode if reg.HasField("mode") else None
        if mount not in roots:
            if mount in external and (mode is None or stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                elsewhere[path] = None
            continue
        if mode is None or stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            size = reg.size if reg.HasField("size") and (mode is None or stat.S_ISREG(mode)) else None
            expected[path] = Expected(path, size, mode, _build_id(reg.build_id))
    return list(expected.values()), list(elsewhere)


def compare_files(expected: Sequence[Expected], found: Mapping[str, Found | None]) -> Iterator[Finding]:
    differing: dict[str, list[str]] = {}
    by_build_id = 0
    for file in expected:
        if (difference := _difference(file, found.get(file.path))) is not None:
            code, sentence = difference
            differing.setdefault(code, []).append(sentence)
        elif file.build_id and (there := found[file.path]) and there.elf and there.elf.build_id:
            by_build_id += 1
    for code, sentences in differing.items():
        yield from (finding(code, "files", sentence) for sentence in sentences[:LISTED_MAX])
        if len(sentences) > LISTED_MAX:
            yield finding(code, "files", f"{len(sentences) - LISTED_MAX} more files are like that")
    if not differing:
        sentence = f"all {len(expected)} files and directories that the processes use are there as they were"
        yield finding("FilesMatch", "files", f"{sentence}, {by_build_id} of them compared by build ID")


def volumes(elsewhere: Sequence[str]) -> Iterator[Finding]:
    if elsewhere:
        sentence = f"{listed(elsewhere)}: open on mounts of the pod; they must be there with the same size"
        yield finding("FilesOnVolumes", "files", sentence)


def _difference(file: Expected, there: Found | None) -> tuple[str, str] | None:
    if there is None:
        return "FileMissing", f"{file.path} is open or mapped, and not in the image the pod would start from"
    if file.size is not None and there.kind == "file" and there.size != file.size:
        return "FileSizeDiffers", f"{file.path} had {file.size} bytes, in the image it has {there.size}"
    if file.mode is not None:
        wanted = "directory" if stat.S_ISDIR(file.mode) else "file"
        if there.kind != wanted:
            return "FileModeDiffers", f"{file.path} was a {wanted}, in the image it is a {there.kind}"
        if there.mode is not None and stat.S_IMODE(file.mode) != there.mode:
            modes = f"{stat.S_IMODE(file.mode):o}, in the image it has {there.mode:o}"
            return "FileModeDiffers", f"{file.path} had the mode {modes}"
    here = there.elf.build_id if there.elf else None
    if file.build_id and here and here.ljust(-(-len(here) // 8) * 8, "0") != file.build_id:
        return "BuildIdDiffers", f"{file.path} had the build ID {file.build_id}, in the image it has {here}"
    return None


def _build_id(words: Sequence[int]) -> str | None:
    """CRIU keeps the bytes as words in the machine's own order, which is little-endian wherever pods run but s390."""
    return struct.pack(f"<{len(words)}I", *words).hex() if words else None
