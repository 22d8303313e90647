"""One header block of a tar archive, in the forms that every reader understands alike.

Sources: POSIX.1-2018 pax(1), "ustar Interchange Format"; GNU tar manual, "Basic Tar Format"; Go archive/tar format.go
and reader.go; GNU tar list.c (decode_header, from_header); Python tarfile (TarInfo.frombuf).
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from typing import Final, Literal

from shared.tar.unsound import Ambiguous, Damaged

BLOCK_BYTES: Final = 512
Kind = Literal["file", "directory", "hard link", "symbolic link", "character device", "block device", "FIFO"]
KINDS: Final[dict[bytes, Kind]] = {
    b"0": "file",
    b"\0": "file",
    b"S": "file",
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "character device",
    b"4": "block device",
    b"5": "directory",
    b"6": "FIFO",
}
"""By type flag. Python takes "7" (contiguous) for a file, containerd for an error, so it is none here."""
EXTENSIONS: Final = frozenset({b"x", b"g", b"L", b"K"})
ID_MAX: Final = (1 << 32) - 2
"""chown(2) has 32 bits, and leaves the owner as it is for the last of those numbers."""
_MODE_MAX: Final = 0o177777
_MAJOR_MAX: Final = (1 << 12) - 1
_MINOR_MAX: Final = (1 << 20) - 1
"""Linux, include/linux/kdev_t.h; containerd cuts larger numbers to 32 bits."""
_POSIX: Final = b"ustar\x0000"
_GNU: Final = b"ustar  \0"
_OCTAL: Final = re.compile(rb" *([0-7]+)[ \0]*")
_FORMATS: Final[dict[int, frozenset[Kind]]] = {
    stat.S_IFREG: frozenset({"file", "hard link"}),
    stat.S_IFDIR: frozenset({"directory"}),
    stat.S_IFLNK: frozenset({"symbolic link", "hard link"}),
    stat.S_IFCHR: frozenset({"character device", "hard link"}),
    stat.S_IFBLK: frozenset({"block device", "hard link"}),
    stat.S_IFIFO: frozenset({"FIFO", "hard link"}),
}


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of one block, as they stand there."""

    block: bytes
    flag: bytes
    name: bytes
    """With the prefix of a POSIX header."""
    target: bytes
    mode: int
    uid: int
    gid: int
    size: int
    modified: int
    """Seconds since 1970."""
    device: tuple[int, int]
    owner_named: bool

    @property
    def kind(self) -> Kind | None:
        """What kind of member the type flag says; None for one that is not known."""
        return KINDS.get(self.flag)


def read_header(block: bytes) -> Header:
    """The fields of a block of BLOCK_BYTES; raises Damaged, Ambiguous."""
    _check_sum(block)
    gnu = _is_gnu(block)
    flag = block[156:157]
    name = text(block[:100], "name")
    if gnu:
        # Go takes what stands here for a prefix if it is no time, Python always does, GNU tar never.
        rest = block[345:386] + block[495:] if flag == b"S" else block[345:]
        if rest.strip(b"\0"):
            raise Ambiguous("its header in the GNU format has bytes where the POSIX format has a prefix of the name")
    else:
        if block[500:].strip(b"\0"):
            raise Ambiguous("its header has bytes after the prefix of the name, as the format of star has")
        if prefix := text(block[345:500], "prefix"):
            name = prefix + b"/" + name
    if flag == b"S" and not gnu:
        raise Ambiguous("it is a sparse file of the GNU format with a header of another format")
    if flag == b"\0" and name.endswith(b"/"):
        raise Ambiguous("it is a directory by its name alone")
    kind = KINDS.get(flag)
    mode = number(block[100:108], "mode", _MODE_MAX)
    if kind and (form := stat.S_IFMT(mode)) and kind not in _FORMATS.get(form, frozenset()):
        raise Ambiguous(f"it is a {kind} by its type flag and something else by its mode {mode:o}")
    return Header(
        block,
        flag,
        name,
        text(block[157:257], "link target"),
        mode & 0o7777,
        number(block[108:116], "uid", ID_MAX),
        number(block[116:124], "gid", ID_MAX),
        number(block[124:136], "size", 1 << 96),
        _time(block[136:148]),
        _device(block, node=kind in ("character device", "block device")),
        bool(text(block[265:297], "owner's name") or text(block[297:329], "group's name")),
    )


def number(field: bytes, what: str, largest: int = (1 << 63) - 1) -> int:
    """Octal digits, or base 256 behind the byte 0x80; an empty field is not a number to GNU tar and 0 to the others."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:])
    elif match := _OCTAL.fullmatch(field):
        value = int(match[1], 8)
    else:
        raise Damaged(f"its header has no valid {what}")
    if value > largest:
        raise Ambiguous(f"its header has the {what} {value}, which some programs cut to fewer bits")
    return value


def text(field: bytes, what: str) -> bytes:
    """The bytes before the first zero byte; only zero bytes may follow."""
    found, _, rest = field.partition(b"\0")
    if rest.strip(b"\0"):
        raise Ambiguous(f"the {what} in its header goes on after a zero byte")
    return found


def _check_sum(block: bytes) -> None:
    if block[148] == 0x80:
        raise Damaged("its header has no valid checksum")  # to Go, which takes only octal digits here
    wanted = number(block[148:156], "checksum")
    blanked = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(blanked)
    # Some old tars summed signed characters; every reader takes either.
    if wanted != unsigned and wanted != unsigned - 256 * sum(byte > 127 for byte in blanked):
        raise Damaged("its header has a wrong checksum")


def _is_gnu(block: bytes) -> bool:
    magic = block[257:265]
    if magic not in (_POSIX, _GNU):
        raise Ambiguous("its header is neither of the POSIX nor of the GNU format")
    return magic == _GNU


def _time(field: bytes) -> int:
    """A time may be before 1970: GNU tar writes those in two's complement behind the byte 0xff."""
    if field[0] == 0xFF and (value := int.from_bytes(field, signed=True)) >= -(1 << 62):
        return value
    return number(field, "time")


def _device(block: bytes, *, node: bool) -> tuple[int, int]:
    major, minor = block[329:337], block[337:345]
    if not node and not (major + minor).strip(b"\0"):  # GNU tar leaves them empty
        return 0, 0
    found = number(major, "major number", _MAJOR_MAX), number(minor, "minor number", _MINOR_MAX)
    return found if node else (0, 0)
