"""Fields that only one of two readers sees: unknown ones, parts of another kind, numbers and labels nobody reads."""

from __future__ import annotations

import stat
import struct
from typing import Any

from shared.criu import areas
from shared.criu import criu_pb2 as pb
from shared.criu.images import Kind, join
from tests.hostile.attack import Change, add, attack
from tests.hostile.forgery import Forgery

_UNKNOWN = b"\xf8\xff\xff\xff\x0f\x01"
"""Field 536870911, the last one that protobuf has, as a number."""


def _appended(name: str, content: bytes) -> Change:
    """``content`` behind the fields of the image's first message."""

    def change(forgery: Forgery) -> None:
        whole = forgery.contents()[f"checkpoint/{name}"]
        start = 4 if name == "inventory.img" else 8
        (size,) = struct.unpack_from("<I", whole, start)
        end = start + 4 + size
        new = struct.pack("<I", size + len(content)) + whole[start + 4 : end] + content
        forgery.raw(name, whole[:start] + new + whole[end:])

    return change


def _in_mounts(forgery: Forgery) -> None:
    _appended(f"mountpoints-{forgery.ids().mnt_ns_id}.img", _UNKNOWN)(forgery)


def _in_table(forgery: Forgery) -> None:
    _appended(f"fdinfo-{forgery.ids().files_id}.img", _UNKNOWN)(forgery)


for _name in (
    "inventory.img", "pstree.img", "core-1.img", "ids-1.img", "mm-1.img", "fs-1.img", "files.img", "pagemap-1.img",
):  # fmt: skip
    add(f"a field of {_name} that nobody knows", "ImageUnknown", _appended(_name, _UNKNOWN))
add("a field of a mount that nobody knows", "ImageUnknown", _in_mounts)
add("a field of a descriptor that nobody knows", "ImageUnknown", _in_table)
add("a mount's field twice", "ImageDamaged", lambda forgery: _twice(forgery))


def _twice(forgery: Forgery) -> None:
    again = pb.MntEntry(sb_flags=4096).SerializePartialToString()
    _appended(f"mountpoints-{forgery.ids().mnt_ns_id}.img", again)(forgery)


# ---- a file's kind says one thing, its parts another ----
@attack("a pipe that is a file of the node as well", "ImageDamaged")
def _decoy(forgery: Forgery) -> None:
    pipe = pb.PipeEntry(id=2000, pipe_id=2000)
    reg = pb.RegFileEntry(id=2000, name=b"/proc/sys/kernel/core_pattern", flags=1, mode=stat.S_IFREG | 0o644)
    forgery.open_file(pb.FileEntry(type=2, id=2000, pipe=pipe, reg=reg))


@attack("a part with another number than its file", "ImageDamaged")
def _other_number(forgery: Forgery) -> None:
    reg = next(each.reg for each in forgery.opened if each.type == 1)
    decoy = pb.RegFileEntry()
    decoy.CopyFrom(reg)
    forgery.open_file(pb.FileEntry(type=1, id=2000, reg=decoy))


@attack("a label for a descriptor", "FieldExceeds")
def _label(forgery: Forgery) -> None:
    table = forgery.image(f"fdinfo-{forgery.ids().files_id}.img")
    table[0].xattr_security_selinux = b"system_u:object_r:container_file_t:s0"


# ---- memory ----
def _mapped(flags: int) -> Change:
    def change(forgery: Forgery) -> None:
        mapped: Any = next(area for area in forgery.image("mm-1.img")[0].vmas if area.status & areas.FILE_PRIVATE)
        mapped.fdflags = flags

    return change


for _flag in ("O_TRUNC", "O_CREAT", "O_APPEND", "O_DIRECT"):
    add(
        f"a mapped file that is opened with {_flag}",
        "FieldExceeds",
        _mapped({"O_TRUNC": 0o1000, "O_CREAT": 0o100, "O_APPEND": 0o2000, "O_DIRECT": 0o40000}[_flag]),
    )


# ---- deleted files ----
def _deleted(number: int) -> Change:
    """CRIU takes bit 31 of the number away (files-reg.c, REMAP_GHOST in old images)."""

    def change(forgery: Forgery) -> None:
        entry = forgery.open_path("/tmp/gone", stat.S_IFREG | 0o644)
        for name, mode, uid in (("1", 0o4755, 0), (f"{number:x}", 0o644, 1000)):
            ghost = pb.GhostFileEntry(uid=uid, gid=uid, mode=stat.S_IFREG | mode)
            forgery.raw(f"ghost-file-{name}.img", join(Kind.GHOST_FILE, [ghost]) + b"attack\n")
        forgery.new_image("remap-fpath.img", pb.RemapFilePathEntry(orig_id=entry.id, remap_id=number, remap_type=1))

    return change


add("a deleted file whose number has another one in it", "ImageDamaged", _deleted(1 << 31 | 1), "user")
