"""Finds what needs a look before root unpacks a tar archive: device nodes, programs that raise rights, links.

Such archives are in a checkpoint twice: CRIU's images of tmpfs mounts, and the rootfs diff. They come from a
container's own file system, so every kind of file is in order; the names in them are not trusted.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from shared.errors import CheckpointInvalid
from shared.member_names import quoted
from shared.tar import DIFF, TMPFS, MemberWalk, TarMember, TarStream

Kind = Literal["character device", "block device", "file", "symbolic link"]


@dataclass(frozen=True, slots=True)
class SpecialFile:
    """A device node, a program with the setuid or setgid bit or with capabilities, or a link."""

    path: str
    kind: Kind
    major: int
    minor: int
    mode: int
    """Permission bits."""
    uid: int
    gid: int
    capabilities: bool


def special_files(
    stream: TarStream, archive: str, top: str, *, limit_bytes: int, too_large: str, links: bool = True
) -> Iterator[SpecialFile]:
    """Every special file of an archive that would be unpacked at ``top``.

    ``links`` is true for the content of a tmpfs, which GNU tar unpacks, and false for a rootfs diff, which the runtime
    unpacks below the root without following links out of it: symbolic links are no special files there.
    Raises CheckpointInvalid: ``too_large`` when the members claim more than ``limit_bytes``, TmpfsLink for a hard link
    in a tmpfs to anything but an earlier file of the archive that is no device, ArchiveAmbiguous for one in a rootfs
    diff that leads outside, and what walking a tar archive raises.
    """
    files: set[str] = set()
    total = 0
    for member in MemberWalk(stream, archive, TMPFS if links else DIFF).members():
        total += member.size
        if total > limit_bytes:
            raise CheckpointInvalid(too_large, f"{archive} unpacks to more than {limit_bytes} bytes")
        if member.kind == "hard link":
            (_check_tmpfs_link if links else _check_diff_link)(member, files, archive)
        if member.kind in ("file", "hard link", "FIFO"):
            files.add(member.name)
        if (found := _special(member, top)) and (links or found.kind != "symbolic link"):
            yield found


def _special(member: TarMember, top: str) -> SpecialFile | None:
    raising = member.capabilities or member.mode & (stat.S_ISUID | stat.S_ISGID)
    if member.kind == "character device" or member.kind == "block device" or member.kind == "symbolic link":
        kind: Kind = member.kind
    elif member.kind in ("file", "hard link") and raising:
        # containerd gives the mode, owner and attributes of a hard link's header to the file that it links to.
        kind = "file"
    else:
        return None
    return SpecialFile(
        f"{top}/{member.name}", kind, *member.device, member.mode, member.uid, member.gid, member.capabilities
    )


def _check_diff_link(member: TarMember, files: set[str], archive: str) -> None:
    """containerd begins at the root, containers/storage gives up; the target may be a file of the base image."""
    if member.target.startswith("/") or ".." in member.target.split("/"):
        raise CheckpointInvalid(
            "ArchiveAmbiguous",
            f"{archive}: {quoted(member.name)} is a hard link to {quoted(member.target)}, which leads outside the "
            "archive, and runtimes differ in what that means; take a new checkpoint",
        )


def _check_tmpfs_link(member: TarMember, files: set[str], archive: str) -> None:
    """tar follows the target's own links where it is none of the archive's files; devices are judged by their paths."""
    target = member.target
    name = posixpath.normpath(target)
    if target.startswith("/") or ".." in target.split("/") or name not in files:
        raise CheckpointInvalid(
            "TmpfsLink",
            f"{archive}: {quoted(member.name)} is a hard link to {quoted(target)}, which is no file before it",
        )
