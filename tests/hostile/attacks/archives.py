"""Links, odd entries and odd headers: in the layer that the runtime unpacks, and in an archive handed to ``build``."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable

from shared.compression import Compression
from tests.hostile.attack import Change, add, attack, twin
from tests.hostile.forgery import Forgery
from tests.support.checkpoints import compress, member


def _extra(*entries: tuple[str, bytes, dict[str, object]]) -> Change:
    def change(forgery: Forgery) -> None:
        for name, kind, fields in entries:
            forgery.extra.append(member(name, kind=kind, **fields))

    return change


def _replaced(name: str, kind: bytes, **fields: object) -> Change:
    def change(forgery: Forgery) -> None:
        forgery.files.pop(name, None)
        forgery.extra.append(member(name, kind=kind, **fields))

    return change


for _name in ("container.log", "config.dump", "rootfs-diff.tar", "checkpoint/pages-1.img", "checkpoint/inventory.img"):
    add(
        f"{_name} is a link to a file of the node",
        "MemberKind",
        _replaced(_name, tarfile.SYMTYPE, linkname="/etc/shadow"),
    )
    add(
        f"{_name} is a link upwards", "MemberKind", _replaced(_name, tarfile.SYMTYPE, linkname="../../../../etc/shadow")
    )
for _kind, _type in (
    ("a FIFO", tarfile.FIFOTYPE),
    ("a character device", tarfile.CHRTYPE),
    ("a block device", tarfile.BLKTYPE),
):
    add(f"{_kind} among the images", "MemberKind", _replaced("checkpoint/pages-1.img", _type, devmajor=1, devminor=1))
    add(f"{_kind} beside the metadata", "MemberKind", _extra(("x", _type, {"devmajor": 8, "devminor": 0})))
add("a link nobody reads", "MemberKind", _extra(("nobody", tarfile.SYMTYPE, {"linkname": "/"})))
add("the images' folder is a link", "MemberKind", _extra(("checkpoint.d", tarfile.SYMTYPE, {"linkname": "checkpoint"})))
add("folders nested too deep", "MemberName", lambda forgery: forgery.extra.append(member("d/" * 200 + "x", b"x")))
add("a name with a line break", "MemberName", lambda forgery: forgery.extra.append(member("a\nb", b"x")))
add("a name that is not UTF-8", "MemberName", lambda forgery: forgery.extra.append(member("a\udcff", b"x")))

# ---- what a user's machine reads: the same, and what no runtime would hand on ----

for _name in ("/etc/cron.d/x", "../../etc/cron.d/x", "checkpoint/../../x", "a/../../../b", ".."):
    add(
        f"member {_name}",
        "MemberName",
        lambda forgery, name=_name: forgery.extra.append(member(name, b"x")),
        route="archive",
    )  # type: ignore[misc]
for _kind, _type in (
    ("symbolic link", tarfile.SYMTYPE),
    ("hard link", tarfile.LNKTYPE),
    ("FIFO", tarfile.FIFOTYPE),
    ("character device", tarfile.CHRTYPE),
    ("block device", tarfile.BLKTYPE),
    ("contiguous file of unknown kind", b"Z"),
):
    add(f"a {_kind} in an archive", "MemberKind", _extra(("x", _type, {"linkname": "/etc/shadow"})), route="archive")


def _archive(name: str, reason: str, change: object) -> None:
    def apply(forgery: Forgery) -> None:
        forgery.archive = change  # type: ignore[assignment]

    add(name, reason, apply, route="archive")


def _doubled(whole: bytes) -> bytes:
    return whole + whole


def _with_size(whole: bytes, size: bytes) -> bytes:
    first = bytearray(whole)
    at = next(n for n in range(0, len(whole), 512) if whole[n : n + 11] == b"config.dump")
    first[at + 124 : at + 136] = size
    first[at + 148 : at + 156] = b" " * 8
    first[at + 148 : at + 156] = f"{sum(first[at : at + 512]):06o}\0 ".encode()
    return bytes(first)


_archive("an archive cut short", "ArchiveTruncated", lambda whole: whole[: len(whole) // 2])
_archive("a second archive behind the first", "ArchiveAmbiguous", _doubled)
_archive("bytes behind the end", "ArchiveAmbiguous", lambda whole: whole + b"x" * 512)
_archive("a wrong checksum", "ArchiveDamaged", lambda whole: b"y" + whole[1:])
_archive("a size of many exabytes", "MemberTooLarge", lambda whole: _with_size(whole, b"\x80" + b"\x7f" * 11))
_archive("a size that is no number", "ArchiveDamaged", lambda whole: _with_size(whole, b"-1234567890\0"))
_archive("gzip cut short", "ArchiveTruncated", lambda whole: gzip.compress(whole, 1)[:-9])
_archive("gzip that lies about its checksum", "ArchiveDamaged", lambda whole: gzip.compress(whole, 1)[:-8] + b"\1" * 8)
_archive("zstd with a window of 2 GiB", "ArchiveDamaged", lambda whole: b"\x28\xb5\x2f\xfd\x00\xa8" + bytes(64))


def _pax(records: dict[str, str]) -> Change:
    def change(forgery: Forgery) -> None:
        forgery.extra.append(member("checkpoint/more", b"x" * 10, pax_headers=records))

    return change


add("headers that differ about the name", "MemberName", _pax({"path": "../../etc/passwd"}), route="archive")
add(
    "a sparse file by extended header",
    "ArchiveAmbiguous",
    _pax({"GNU.sparse.major": "1", "GNU.sparse.name": "x"}),
    route="archive",
)


add(
    "an attribute for the runtime's overlay",
    "ArchiveAmbiguous",
    _pax({"SCHILY.xattr.trusted.overlay.redirect": "/etc"}),
    route="archive",
)


@attack("a global header that names every member", "ArchiveAmbiguous", route="archive")
def _global(forgery: Forgery) -> None:
    def change(whole: bytes) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "config.dump"}) as tar:
            tar.addfile(*_file("x"))
        return out.getvalue()

    forgery.archive = change


def _file(name: str) -> tuple[tarfile.TarInfo, io.BytesIO]:
    return tarfile.TarInfo(name), io.BytesIO()


@attack("one member twice", "MemberDuplicate", route="archive")
def _twice(forgery: Forgery) -> None:
    forgery.extra.append(member("config.dump", forgery.files["config.dump"]))


@attack("a file that is a folder too", "MemberDuplicate", route="archive")
def _both(forgery: Forgery) -> None:
    forgery.extra += [member("a", b"x"), member("a/b", b"x")]


@attack("a hundred thousand members and one", "TooManyMembers", route="archive")
def _many(forgery: Forgery) -> None:
    def change(whole: bytes) -> bytes:
        return b"".join(tarfile.TarInfo(f"m{n}").tobuf() for n in range(100_001)) + bytes(1024)

    forgery.archive = change


def _packed(name: str, change: Callable[[bytes], bytes]) -> None:
    def apply(forgery: Forgery) -> None:
        forgery.archive = change

    twin(name, route="archive")(apply)


_packed("an archive as it was written", lambda whole: whole)
_packed("an archive padded to a record of tar", lambda whole: whole + bytes(-len(whole) % 10240))
_packed("gzip", lambda whole: gzip.compress(whole, 1))
_packed("gzip in two members, padded for a tape", lambda whole: _two(whole) + bytes(512))
_packed("zstd", lambda whole: compress(whole, Compression.ZSTD))
_packed(
    "zstd behind a skippable frame", lambda whole: b"\x50\x2a\x4d\x18\4\0\0\0note" + compress(whole, Compression.ZSTD)
)


def _two(whole: bytes) -> bytes:
    half = len(whole) // 2
    return gzip.compress(whole[:half], 1) + gzip.compress(whole[half:], 1)


@twin("headers that agree about the name", route="archive")
def _agreeing(forgery: Forgery) -> None:
    _pax({"path": "checkpoint/more", "mtime": "1.5", "SCHILY.xattr.user.x": "y"})(forgery)


@twin("a long name", route="archive")
def _long_name(forgery: Forgery) -> None:
    forgery.extra.append(member("n" * 200, b"x"))


@twin("an archive with a folder and a file that nobody knows, as a file", route="archive")
def _unknown_file_in_archive(forgery: Forgery) -> None:
    forgery.extra += [member("more/", kind=tarfile.DIRTYPE), member("more/notes", b"x")]


@twin("many members, but no more than there may be", route="archive")
def _many_members(forgery: Forgery) -> None:
    forgery.extra += [member(f"m{n}") for n in range(20_000)]


@twin("an archive with a folder and a file that nobody knows")
def _unknown_file(forgery: Forgery) -> None:
    forgery.extra += [member("more/", kind=tarfile.DIRTYPE), member("more/notes", b"x")]
