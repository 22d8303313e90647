"""What extended headers say about the member that follows them.

Sources: POSIX.1-2018 pax(1), "pax Extended Header"; GNU tar xheader.c; Go archive/tar reader.go (mergePAX, next);
GNU tar manual, "Storing Sparse Files" (PAX format, version 1.0).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shared.member_names import quoted
from shared.tar.header import ID_MAX
from shared.tar.rules import Rules
from shared.tar.unsound import Ambiguous, Damaged

EXTENSION_BYTES_MAX: Final = 64 << 10
_NUMBER: Final = re.compile(rb"0|[1-9][0-9]{0,18}")
_TIME: Final = re.compile(rb"-?[0-9]{1,18}(\.[0-9]+)?")
_TIMES: Final = frozenset({"atime", "ctime", "mtime"})
_IDLE: Final = frozenset({"comment", "SCHILY.dev", "SCHILY.ino", "SCHILY.nlink", "LIBARCHIVE.creationtime"})
"""Records that change nothing in any program that unpacks."""
_OWNER_NAMES: Final = frozenset({"uname", "gname"})
_ATTRIBUTE: Final = "SCHILY.xattr."
_SPARSE: Final = "GNU.sparse."
_SPARSE_KEYS: Final = frozenset({"major", "minor", "name", "realsize"})
_ATTRIBUTES: Final = ("security.capability", "security.ima")
_OVERLAY_ATTRIBUTES: Final = ("user.overlay.", "user.containers.", "user.fuseoverlayfs.")
"""Overlay file systems mounted by a user read their own marks, owners and modes from these."""
_MEANT_FOR_SOME: Final = re.compile(r"GNU\..*|.*charset|SCHILY\.(?!xattr\.|dev$|ino$|nlink$|acl\.|fflags$).*")
"""Records by which star, libarchive or GNU tar change a member's name, kind, size or device."""


@dataclass(slots=True)
class Extension:
    """The extended headers between two members: one of POSIX, or a long name and a long target of GNU."""

    posix: bool = False
    name: bytes | None = None
    target: bytes | None = None
    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    modified: int | None = None
    capabilities: bool = False
    owner_named: bool = False
    sparse: dict[str, bytes] | None = None

    @property
    def used(self) -> bool:
        """Whether there was any."""
        return self.posix or self.name is not None or self.target is not None

    def add(self, flag: bytes, content: bytes, rules: Rules) -> None:
        """Takes one more extended header; raises Damaged, Ambiguous."""
        if flag == b"g":
            # Go applies it to nothing and forgets the headers before it; GNU tar and Python apply it to all that
            # follow; containerd removes the file that has its name.
            raise Ambiguous("there is a global extended header")
        if self.posix or (flag == b"x" and self.used):
            raise Ambiguous("one member has two extended headers")
        if flag == b"x":
            self.posix = True
            self._add_records(content, rules)
        elif flag == b"L":
            if self.name is not None:
                raise Ambiguous("one member has two long names")
            self.name = _long(content)
        else:
            if self.target is not None:
                raise Ambiguous("one member has two long link targets")
            self.target = _long(content)

    def _add_records(self, content: bytes, rules: Rules) -> None:
        seen = set()
        for raw, value in _records(content):
            try:
                key = raw.decode()
            except UnicodeDecodeError:
                raise Damaged(f"an extended header has the record {quoted(raw)}, which is not UTF-8") from None
            if key in seen:
                raise Ambiguous(f"an extended header says {quoted(key)} twice")
            seen.add(key)
            self._add_record(key, value, rules)
        if self.sparse is not None and self.sparse.keys() != _SPARSE_KEYS:
            raise Ambiguous("an extended header describes a sparse file in an unusual way")

    def _add_record(self, key: str, value: bytes, rules: Rules) -> None:
        if key.startswith(_ATTRIBUTE):
            self._add_attribute(key.removeprefix(_ATTRIBUTE), rules)
        elif key in ("path", "linkpath") or key in _OWNER_NAMES:
            if not value or b"\0" in value:
                raise Ambiguous(f"an extended header has {quoted(key)} without a value or with a zero byte in it")
            if key == "path":
                self.name = value
            elif key == "linkpath":
                self.target = value
            self.owner_named |= key in _OWNER_NAMES
        elif key == "size":
            self.size = _number(key, value, (1 << 63) - 1)
        elif key == "uid":
            self.uid = _number(key, value, ID_MAX)
        elif key == "gid":
            self.gid = _number(key, value, ID_MAX)
        elif key in _TIMES:
            if not _TIME.fullmatch(value):
                raise Damaged(f"an extended header has no valid {key}")
            if key == "mtime":
                self.modified = int(value.partition(b".")[0])
        elif rules.sparse and key.startswith(_SPARSE) and key.removeprefix(_SPARSE) in _SPARSE_KEYS:
            self.sparse = {**(self.sparse or {}), key.removeprefix(_SPARSE): value}
        elif key not in _IDLE and not (rules.foreign and not _MEANT_FOR_SOME.fullmatch(key)):
            raise Ambiguous(f"an extended header has the record {quoted(key)}, which only some programs understand")

    def _add_attribute(self, name: str, rules: Rules) -> None:
        if name == "security.capability":
            self.capabilities = True
        if rules.foreign:
            return
        own = name.startswith("user.") and not name.startswith(_OVERLAY_ATTRIBUTES)
        if not rules.attributes or not (own or name in _ATTRIBUTES):
            raise Ambiguous(f"an extended header sets the attribute {quoted(name)}, which no engine writes there")


def _long(content: bytes) -> bytes:
    """GNU tar puts one zero byte behind a long name."""
    name = content.removesuffix(b"\0")
    if not name or b"\0" in name:
        raise Ambiguous("a long name is empty or goes on after a zero byte")
    return name


def _number(key: str, value: bytes, largest: int) -> int:
    if not _NUMBER.fullmatch(value):
        raise Damaged(f"an extended header has no valid {key}")
    if (found := int(value)) > largest:
        raise Ambiguous(f"an extended header has the {key} {found}, which some programs cut to fewer bits")
    return found


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """``LENGTH KEY=VALUE\\n``, where LENGTH counts the whole record."""
    while content:
        digits, space, _ = content[:21].partition(b" ")
        if not space or not _NUMBER.fullmatch(digits) or not len(digits) + 4 <= (length := int(digits)) <= len(content):
            raise Damaged("an extended header has a record of the wrong length")
        record, content = content[len(digits) + 1 : length], content[length:]
        key, equals, value = record.partition(b"=")
        if not equals or not key or b"\0" in key or value[-1:] != b"\n":
            raise Damaged("an extended header has a record without a key, a value or an end")
        yield key, value[:-1]
