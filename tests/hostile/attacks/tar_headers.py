"""Headers that programs read differently, in the two archives that are unpacked as root: tmpfs images, rootfs diffs."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable

from tests.hostile.attack import Change, add, twin
from tests.hostile.forgery import Forgery
from tests.support.checkpoints import member
from tests.support.tars import END, block, checksummed, extended, header_changed, part, records

DIFF = "rootfs-diff.tar"
GNU = tarfile.GNU_FORMAT
Edit = Callable[[bytes], bytes]


def _edited(name: str, edit: Edit) -> Change:
    """``edit`` gets the archive without its end."""

    def change(forgery: Forgery) -> None:
        found = name if name == DIFF else f"checkpoint/tmpfs-dev-{forgery.mount('/dev').root_dev}.tar.gz.img"
        forgery.rewritten.add(found)
        whole = gzip.decompress(forgery.files[found]).rstrip(b"\0")
        forgery.files[found] = gzip.compress(edit(whole + bytes(-len(whole) % 512)), mtime=0)

    return change


def _behind(*pieces: bytes) -> Edit:
    return lambda whole: whole + b"".join(pieces) + END


def _both(what: str, *pieces: bytes, reason: str = "ArchiveAmbiguous") -> None:
    add(f"{what}, in a tmpfs", reason, _edited("tmpfs", _behind(*pieces)), "user")
    add(f"{what}, in the rootfs diff", reason, _edited(DIFF, _behind(*pieces)), "user")


PLAIN = part(member("plain", b"x"))
SETUID = extended(b"x", records(path="su", uid="0")) + part(member("a", b"x", mode=0o4755, uid=1000))
GLOBAL = extended(b"g", records(uid="1000"))

_both("a global header that changes the owner", GLOBAL, part(member("su", b"x", mode=0o4755)))
_both("a global header that says nothing", extended(b"g", records(comment="x")), PLAIN)
_both(
    "a global header between an extended header and its member",
    extended(b"x", records(uid="1000", gid="1000")),
    extended(b"g", records(comment="x")),
    part(member("su", b"x", mode=0o4755)),
)
_both("two extended headers before one member", extended(b"x", records(uid="1000")), SETUID)
_both(
    "a long name and an extended header before one member",
    extended(b"L", b"plain\0", form=GNU),
    extended(b"x", records(path="su")),
    part(member("a", b"x", mode=0o4755)),
)
_both(
    "an extended header and a long name before one member",
    extended(b"x", records(path="su")),
    extended(b"L", b"plain\0", form=GNU),
    part(member("a", b"x", mode=0o4755)),
)
_both("two long names before one member", *[extended(b"L", b"%d\0" % n, form=GNU) for n in range(2)], PLAIN)
_both("two long link targets before one member", *[extended(b"K", b"%d\0" % n, form=GNU) for n in range(2)], PLAIN)
_both("a long name that goes on in the padding", extended(b"L", b"ab", form=GNU)[:-510] + b"c" * 510, PLAIN)
_both(
    "records that go on in the padding",
    (extended(b"x", records(mtime="1"))[:-500] + records(path="su")).ljust(1024, b"\0"),
    PLAIN,
)
_both("one record twice", extended(b"x", records(uid="1000") + records(uid="0")), PLAIN)
_both("a record of another character set", extended(b"x", records(hdrcharset="BINARY", path="x")), PLAIN)
_both("an owner above 32 bits", extended(b"x", records(uid=str(1 << 32))), part(member("su", b"x", mode=0o4755)))
_both("an owner that means none", extended(b"x", records(uid=str((1 << 32) - 1))), PLAIN)
_both("a device number above 32 bits", header_changed(block("d", kind=b"3"), 329, b"\x80\0\0\1\0\0\0\1" + b"0000001\0"))
_both("a name that goes on after a zero byte", header_changed(block("a"), 50, b"b"))
_both("a prefix in a header of the GNU format", header_changed(block("su", form=GNU), 345, b"usr"))
_both("a header of star", header_changed(block("a"), 508, b"tar\0"))
_both("a header of no known format", header_changed(block("a"), 257, b"\0" * 8))
_both("a directory by its name alone", block("a/", kind=b"\0"))
_both("a device by its mode alone", header_changed(block("a"), 100, b"0020666\0"))
_both("a directory with content", header_changed(block("a/", kind=b"5"), 124, b"00000001000\0"), bytes(512))
_both("two sizes", extended(b"x", records(size="512")), part(member("a", b"x" * 1024)))
_both("an attribute of overlays", extended(b"x", records(SCHILY__xattr__trusted__overlay__metacopy="")), PLAIN)
_both("an attribute of overlays of users", extended(b"x", records(SCHILY__xattr__user__overlay__opaque="y")), PLAIN)
_both("a label for SELinux", extended(b"x", records(RHT__security__selinux="spc_t")), PLAIN)
_both("a device in a record of star", extended(b"x", records(SCHILY__filetype="chr")), PLAIN)
_both("a zero block between members", bytes(512), PLAIN)
_both("members behind the end", END, PLAIN)
_both("a contiguous file", block("a", kind=b"7"), reason="MemberKind")
_both("a member on another volume", block("a", kind=b"M", form=GNU), reason="MemberKind")
_both("a number that is none", header_changed(block("a"), 100, b"0000644x"), reason="ArchiveDamaged")
_both("a negative owner", header_changed(block("a"), 108, b"\xff" * 8), reason="ArchiveDamaged")
_both("a wrong checksum", b"b" + checksummed(block("a"))[1:], reason="ArchiveDamaged")

# ---- what only one of the two unpacks ----

for _owner in ("uname", "gname"):
    add(
        f"a setgid and setuid program of root by its {_owner} in a tmpfs",
        "ArchiveAmbiguous",
        _edited("tmpfs", _behind(part(member("su", b"x", mode=0o6755, uid=1000, gid=1000, **{_owner: "root"})))),
        "user",
    )
add(
    "a setuid program of root by a record of its owner's name in a tmpfs",
    "ArchiveAmbiguous",
    _edited(
        "tmpfs",
        _behind(extended(b"x", records(uname="root")), part(member("su", b"x", mode=0o4755, uid=1000, gid=1000))),
    ),
    "user",
)
add(
    "an attribute in a tmpfs",
    "ArchiveAmbiguous",
    _edited("tmpfs", _behind(extended(b"x", records(SCHILY__xattr__security__capability="x")), PLAIN)),
    "user",
)
add(
    "a hard link in the rootfs diff that makes its target setuid",
    "SetuidExceeds",
    _edited(DIFF, _behind(part(member("su", kind=tarfile.LNKTYPE, linkname="bin/busybox", mode=0o4755)))),
    "user",
)
add(
    "a hard link in the rootfs diff that gives its target capabilities",
    "SetuidExceeds",
    _edited(
        DIFF,
        _behind(
            extended(b"x", records(SCHILY__xattr__security__capability=b"\1\0\0\2")),
            block("su", kind=tarfile.LNKTYPE, linkname="bin/busybox"),
        ),
    ),
    "user",
)
add(
    "a hard link out of the rootfs diff",
    "ArchiveAmbiguous",
    _edited(DIFF, _behind(block("a", kind=tarfile.LNKTYPE, linkname="../../etc/shadow"))),
)
add(
    "a sparse file in the rootfs diff",
    "MemberKind",
    _edited(DIFF, _behind(header_changed(block("a", form=GNU), 156, b"S"))),
)
for _name in (".wh..wh.plnk/1", ".wh..wh.aufs", "a/.wh..", "a/.wh...", ".wh.", ".wh.a/b", ".wh..wh.a"):
    add(
        f"a whiteout called {_name} in the rootfs diff",
        "ArchiveAmbiguous",
        _edited(DIFF, _behind(part(member(_name, b"")))),
    )
add(
    "a whiteout that is a directory in the rootfs diff",
    "ArchiveAmbiguous",
    _edited(DIFF, _behind(block(".wh.a/", kind=tarfile.DIRTYPE))),
)
add(
    "a whiteout behind what it deletes in the rootfs diff",
    "ArchiveAmbiguous",
    _edited(DIFF, _behind(part(member("a", b"x"), member(".wh.a")))),
)
add(
    "a whiteout among the images",
    "ArchiveAmbiguous",
    lambda forgery: forgery.extra.append(member("checkpoint/.wh.pages-1.img")),
    route="archive",
)


@twin("a tmpfs with what GNU tar writes for it", proof="test -c /dev/null && test ! -e /dev/b")
def _gnu(forgery: Forgery) -> None:
    _edited("tmpfs", _behind(part(member("./" + "n" * 150, b"x"), member("./c", mode=0o100644), form=GNU)))(forgery)


@twin("a rootfs diff with attributes, a whiteout and what replaces it", proof="test -f /tmp/again")
def _diff(forgery: Forgery) -> None:
    pieces = (
        extended(b"x", records(SCHILY__xattr__user__mine="y", mtime="1.5", atime="0", ctime="0")),
        part(member("tmp/mine", b"x")),
        part(member("tmp/.wh.again"), member("tmp/again", b"x"), member("tmp/link", kind=b"1", linkname="tmp/again")),
    )
    _edited(DIFF, _behind(*pieces))(forgery)
