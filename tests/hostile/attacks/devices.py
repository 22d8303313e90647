"""Device nodes, setuid programs and links where CRIU or the runtime would unpack them as root."""

from __future__ import annotations

import stat
import tarfile
from typing import Any

from shared.criu import criu_pb2 as pb
from tests.hostile.attack import Change, add, attack, twin
from tests.hostile.forgery import Forgery
from tests.support.checkpoints import member

NODES = (
    ("mem", tarfile.CHRTYPE, 1, 1),
    ("kmsg", tarfile.CHRTYPE, 1, 11),
    ("sda", tarfile.BLKTYPE, 8, 0),
    ("vda", tarfile.BLKTYPE, 253, 0),
    ("fuse", tarfile.CHRTYPE, 10, 229),
    ("kvm", tarfile.CHRTYPE, 10, 232),
)


def _in_tmpfs(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: Any) -> Change:
    return lambda forgery: forgery.tmpfs("/dev", [member(f"./{name}", content, kind, **fields)])


def _in_diff(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: Any) -> Change:
    return lambda forgery: forgery.diff([member(name, content, kind, **fields)])


for _name, _kind, _major, _minor in NODES:
    add(f"{_name} in a tmpfs", "DeviceExceeds", _in_tmpfs(_name, _kind, devmajor=_major, devminor=_minor), "restricted")
    add(
        f"{_name} in the rootfs diff",
        "DeviceExceeds",
        _in_diff(_name, _kind, devmajor=_major, devminor=_minor),
        "restricted",
    )
for _bits, _what in ((0o4755, "setuid"), (0o2755, "setgid"), (0o6755, "setuid and setgid")):
    add(f"a {_what} program of root in a tmpfs", "SetuidExceeds", _in_tmpfs("su", content=b"x", mode=_bits), "user")
    add(
        f"a {_what} program of root in the rootfs diff",
        "SetuidExceeds",
        _in_diff("su", content=b"x", mode=_bits),
        "user",
    )
add(
    "a program with capabilities in the rootfs diff",
    "SetuidExceeds",
    _in_diff("su", content=b"x", pax_headers={"SCHILY.xattr.security.capability": "\x01\x00\x00\x02"}),
    "user",
)
for _name in ("../../etc/cron.d/x", "/etc/cron.d/x", "a/../../x"):
    add(f"{_name} in a tmpfs", "MemberName", lambda forgery, name=_name: forgery.tmpfs("/dev", [member(name, b"x")]))  # type: ignore[misc]
    add(f"{_name} in the rootfs diff", "MemberName", _in_diff(_name, content=b"x"))
add(
    "a file through a link in a tmpfs",
    "MemberDuplicate",
    lambda forgery: forgery.tmpfs(
        "/dev", [member("./a", kind=tarfile.SYMTYPE, linkname="/etc"), member("./a/x", b"x")]
    ),
)
add("a hard link out of a tmpfs", "TmpfsLink", _in_tmpfs("a", tarfile.LNKTYPE, linkname="/etc/shadow"))
add("a hard link out of a tmpfs, upwards", "TmpfsLink", _in_tmpfs("a", tarfile.LNKTYPE, linkname="../../etc/shadow"))
add(
    "a hard link to a link in a tmpfs",
    "TmpfsLink",
    lambda forgery: forgery.tmpfs(
        "/dev",
        [
            member("./a", kind=tarfile.SYMTYPE, linkname="/etc/shadow"),
            member("./b", kind=tarfile.LNKTYPE, linkname="./a"),
        ],
    ),
)
add(
    "a hard link through a link in a tmpfs",
    "TmpfsLink",
    lambda forgery: forgery.tmpfs(
        "/dev",
        [
            member("./a", kind=tarfile.SYMTYPE, linkname="/etc"),
            member("./b", kind=tarfile.LNKTYPE, linkname="./a/shadow"),
        ],
    ),
)
add(
    "a tmpfs whose files would fill the memory",
    "ArchiveTooLarge",
    lambda forgery: forgery.tmpfs("/dev", [member("./a", bytes(80 << 20))]),
)
add(
    "a rootfs diff that would fill the disk",
    "RootfsDiffTooLarge",
    lambda forgery: forgery.files.__setitem__("rootfs-diff.tar", _huge()),
)
add(
    "a tmpfs archive that is none",
    "ArchiveDamaged",
    lambda forgery: forgery.raw(f"tmpfs-dev-{forgery.mount('/dev').root_dev}.tar.gz.img", b"x" * 600),
)
add("a second archive behind a tmpfs' first", "ArchiveAmbiguous", lambda forgery: _append(forgery))
add(
    "an archive of a tmpfs that no mount has",
    "ImageForeign",
    lambda forgery: forgery.raw(
        "tmpfs-dev-4711.tar.gz.img", forgery.files[f"checkpoint/tmpfs-dev-{forgery.mount('/dev').root_dev}.tar.gz.img"]
    ),
)


def _huge() -> bytes:
    entry = tarfile.TarInfo("big")
    entry.size = 1 << 42
    return entry.tobuf()


def _append(forgery: Forgery) -> None:
    name = f"checkpoint/tmpfs-dev-{forgery.mount('/dev').root_dev}.tar.gz.img"
    forgery.files[name] += forgery.files[name]


def _ghost(mode: int, **fields: Any) -> Change:
    """A deleted file that CRIU makes again; the first regular file with a name is remapped to it."""

    def change(forgery: Forgery) -> None:
        entry = forgery.open_path("/tmp/gone", mode=mode)
        forgery.new_image("remap-fpath.img", pb.RemapFilePathEntry(orig_id=entry.id, remap_id=1, remap_type=1))
        ghost = pb.GhostFileEntry(uid=0, gid=0, mode=mode, **fields)
        forgery.raw("ghost-file-1.img", _first(ghost))

    return change


def _first(message: Any) -> bytes:
    from shared.criu.images import header

    serialized = message.SerializeToString()
    return header("ghost-file-%.img") + len(serialized).to_bytes(4, "little") + serialized


add("a deleted disk that is still open", "DeviceExceeds", _ghost(stat.S_IFBLK | 0o660, rdev=8 << 8), "restricted")
add(
    "a deleted /dev/mem that is still open",
    "DeviceExceeds",
    _ghost(stat.S_IFCHR | 0o660, rdev=1 << 8 | 1),
    "restricted",
)
add("a deleted setuid program that is still open", "SetuidExceeds", _ghost(stat.S_IFREG | 0o4755), "user")


@twin("links, a FIFO and a socket's place in a tmpfs")
def _links(forgery: Forgery) -> None:
    forgery.tmpfs(
        "/dev",
        [
            member("./one", b"x"),
            member("./two", kind=tarfile.LNKTYPE, linkname="./one"),
            member("./three", kind=tarfile.SYMTYPE, linkname="/etc/motd"),
            member("./four", kind=tarfile.FIFOTYPE),
        ],
    )


@twin("the runtime's own devices in the rootfs diff")
def _own_devices(forgery: Forgery) -> None:
    forgery.diff([member("null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3), member("etc/.wh.group")])


@twin("a setuid program in the diff of a container of root")
def _setuid(forgery: Forgery) -> None:
    forgery.diff([member("usr/bin/mine", b"x", mode=0o4755)])


@attack("hard links to a device in a tmpfs", "TmpfsLink", "restricted")
def _linked_device(forgery: Forgery) -> None:
    forgery.tmpfs(
        "/dev",
        [
            member("./mem", kind=tarfile.CHRTYPE, devmajor=1, devminor=1),
            member("./null2", kind=tarfile.LNKTYPE, linkname="./mem"),
        ],
    )
