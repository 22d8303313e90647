"""Forges tar archives header by header, and gives them to the reader."""

from __future__ import annotations

import io
import tarfile
from typing import Any

from shared.tar import CHECKPOINT, MemberWalk, Rules, TarMember
from tests.support.checkpoints import Member, member, tar_of_members

END = bytes(1024)


class Bytes:
    """A TarStream over bytes."""

    def __init__(self, content: bytes) -> None:
        self.file = io.BytesIO(content)
        self.length = len(content)

    def read_exactly(self, size: int) -> bytes:
        return self.file.read(size)

    def skip(self, size: int) -> int:
        start = self.file.tell()
        self.file.seek(min(self.length, start + size))
        return self.file.tell() - start


def walked(content: bytes, rules: Rules = CHECKPOINT) -> list[TarMember]:
    return list(MemberWalk(Bytes(content), "the archive", rules).members())


def archive(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    return tar_of_members(members, form)


def part(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    """The members without the end of an archive, for others to follow."""
    whole = archive(*members, form=form).rstrip(b"\0")
    return whole + bytes(-len(whole) % 512)


def checksummed(header: bytes) -> bytes:
    """A block with a right checksum."""
    blanked = header[:148] + b" " * 8 + header[156:512]
    return blanked[:148] + b"%06o\0 " % sum(blanked) + blanked[156:]


def header_changed(content: bytes, start: int, value: bytes) -> bytes:
    """The first header with ``value`` written at ``start`` and the checksum made right again."""
    header = bytearray(content[:512])
    header[start : start + len(value)] = value
    return checksummed(bytes(header)) + content[512:]


def block(name: str = "a", *, form: int = tarfile.PAX_FORMAT, **fields: Any) -> bytes:
    """One header block."""
    entry, _ = member(name, **fields)
    return entry.tobuf(form)[-512:]


def extended(flag: bytes, content: bytes, *, size: int | None = None, form: int = tarfile.PAX_FORMAT) -> bytes:
    """An extended header with its content."""
    whole = header_changed(block("x", form=form), 124, b"%011o\0" % (len(content) if size is None else size))
    return header_changed(whole, 156, flag) + content + bytes(-len(content) % 512)


def record(key: str, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE\\n``."""
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length += 1
    return b"%d" % length + body


def records(**values: str | bytes) -> bytes:
    """Several records, ``__`` for a full stop."""
    return b"".join(
        record(key.replace("__", "."), value.encode() if isinstance(value, str) else value)
        for key, value in values.items()
    )
