"""Small archives and changes of their headers, for what is accepted to be compared with other readers of tar."""

from __future__ import annotations

import tarfile
from typing import Final

from hypothesis import strategies as st

from tests.support.checkpoints import member
from tests.support.tars import archive, block, checksummed, extended, records

BLOCK: Final = 512
FIELDS: Final = (
    0, 50, 99, 100, 107, 108, 115, 116, 124, 135, 136, 147, 148, 156, 157, 200, 257, 262, 263, 265, 297, 329, 337, 345,
    357, 386, 475, 476, 482, 483, 499, 500, 508, 511,
)  # fmt: skip
"""Offsets in a header: where each field of each format begins, and the last byte of some."""
VALUES: Final = (
    b"", b"\0", b" ", b"/", b".", b"a", b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"x", b"\x80", b"\xff", b"-",
    b"../", b"./", b"//", b"0000644\0", b" 000644 ", b"0004755\0", b"7777777\0", b"00000001000\0", b"\0" * 8,
    b"\0" * 12, b" " * 8, b"\x80" + bytes(6) + b"\1", b"\x80" + bytes(3) + b"\1" + bytes(3), b"\xff" * 8, b"\xff" * 12,
    b"\x80\0\0\0\0\0\0\0\0\0\2\0", b"root\0", b"ustar\x0000", b"ustar  \0", b"tar\0", b"12345670123 ", b"prefix\0",
)  # fmt: skip
PIECES: Final = (
    bytes(BLOCK),
    extended(b"x", records(path="other")),
    extended(b"x", records(path="other", uid="0", gid="0", size="3")),
    extended(b"x", records(linkpath="elsewhere")),
    extended(b"x", records(SCHILY__xattr__user__x="y", mtime="1.5", comment="z")),
    extended(b"x", records(uid="7") + records(uid="8")),
    extended(b"x", records(uname="root", gname="root")),
    extended(b"x", records(hdrcharset="BINARY", path="\N{LATIN SMALL LETTER E WITH ACUTE}")),
    extended(b"x", records(GNU__sparse__major="1", GNU__sparse__minor="0")),
    extended(b"g", records(path="other", uid="0")),
    extended(b"g", records(comment="x")),
    extended(b"L", b"long\0", form=tarfile.GNU_FORMAT),
    extended(b"L", b"dir/long/\0", form=tarfile.GNU_FORMAT),
    extended(b"K", b"target\0", form=tarfile.GNU_FORMAT),
    block("more", kind=tarfile.SYMTYPE, linkname="x"),
    block("dir/", kind=tarfile.DIRTYPE),
    block("dev", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
    block("hard", kind=tarfile.LNKTYPE, linkname="plain"),
)  # fmt: skip


def seed(form: int) -> bytes:
    """One member of each kind, with names that need no, one and two extended headers."""
    long = "l" * 120
    return (
        archive(
            member("./", kind=tarfile.DIRTYPE),
            member("plain", b"abc", mode=0o4755, uid=5, gid=6),
            member(long, b"x" * 600),
            member("soft", kind=tarfile.SYMTYPE, linkname="t" * (90 if form == tarfile.USTAR_FORMAT else 120)),
            member("null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            member("d/pipe", kind=tarfile.FIFOTYPE),
            member("d/hard", kind=tarfile.LNKTYPE, linkname="plain", uid=5, gid=6),
            form=form,
        )
        if form != tarfile.USTAR_FORMAT
        else archive(
            member("p" * 90 + "/" + "n" * 90, b"abc"), member("q/r", kind=tarfile.SYMTYPE, linkname="s"), form=form
        )
    )


def mutated(
    form: int, edits: list[tuple[int, int, bytes]], insertions: list[tuple[int, bytes]], *, sign: bool
) -> bytes:
    """``edits``: block, offset in it, bytes. ``insertions``: block, and what is put before it."""
    whole = seed(form)
    blocks = [bytearray(whole[at : at + BLOCK]) for at in range(0, len(whole), BLOCK)]
    while not any(blocks[-1]):
        blocks.pop()
    for number, offset, value in edits:
        target = blocks[number % len(blocks)]
        target[offset : offset + len(value)] = value[: BLOCK - offset]
    signed = [
        checksummed(bytes(each)) if sign and (b"ustar" in each[250:270] or each[148:156].strip(b"\0")) else bytes(each)
        for each in blocks
    ]
    for number, piece in sorted(insertions, reverse=True, key=lambda each: each[0] % (len(signed) + 1)):
        signed.insert(number % (len(signed) + 1), piece)
    return b"".join(signed) + bytes(2 * BLOCK)


FORMS: Final = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
_BYTES = st.sampled_from(VALUES) | st.binary(min_size=1, max_size=3)
_EDIT = st.tuples(st.integers(0, 30), st.sampled_from(FIELDS) | st.integers(0, BLOCK - 1), _BYTES)
ARCHIVES: Final = st.builds(
    mutated,
    FORMS,
    st.lists(_EDIT, max_size=3),
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(PIECES)), max_size=2),
    sign=st.booleans() | st.just(True),
)
