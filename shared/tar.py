"""Walks the headers of a tar stream that nobody vouches for.

Sources: POSIX.1-2018 pax(1) "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format".
Where readers of tar differ in what an odd header means (Go's archive/tar, GNU tar, Python's tarfile), the header is
refused: the runtime that unpacks the layer and we must never see two different archives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from shared.errors import CheckpointInvalid
from shared.member_names import normalised, quoted

BLOCK_BYTES: Final = 512
MEMBERS_MAX: Final = 100_000
"""containerd's own limit for a checkpoint's entries (PR 13822)."""
NAMES_BYTES_MAX: Final = 16 << 20
EXTENSION_BYTES_MAX: Final = 64 << 10
MEMBER_BYTES_MAX: Final = 1 << 44
PADDING_BYTES_MAX: Final = 1 << 20
"""Zeros after the end of the archive; tar programs pad to a record, 10 KiB as a rule."""

_EMPTY: Final = bytes(BLOCK_BYTES)
Kind = Literal["file", "directory", "hard link", "symbolic link", "character device", "block device", "FIFO"]
_KINDS: Final[dict[bytes, Kind]] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "character device",
    b"4": "block device",
    b"5": "directory",
    b"6": "FIFO",
}
PLAIN: Final[frozenset[Kind]] = frozenset({"file", "directory"})
"""What a checkpoint archive may hold."""
EVERY: Final[frozenset[Kind]] = frozenset(_KINDS.values())


class TarStream(Protocol):
    """Where the bytes come from; both calls move forward."""

    def read_exactly(self, size: int) -> bytes:
        """``size`` bytes, fewer only at the end."""

    def skip(self, size: int) -> int:
        """Moves ``size`` bytes on and returns how many there were."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """One member of the archive."""

    name: str
    kind: Kind
    offset: int
    """Where its first byte is in the (decompressed) archive."""
    size: int
    """Bytes."""
    mode: int
    """Permission bits."""
    device: tuple[int, int]
    """Major and minor number of a device node."""
    target: str = ""
    """What a link names, as it stands in the archive; the caller decides what that means."""
    uid: int = 0
    gid: int = 0
    capabilities: bool = False
    """Whether the file would be given capabilities (the extended attribute security.capability)."""
    modified: int = 0
    """When its content last changed: seconds since 1970; 0 where the header does not say."""


class MemberWalk:
    """One pass over an archive; ``content()`` reads the member just yielded.

    Members of other ``kinds`` are refused. Where EVERY kind is allowed, the archive comes from a container's own file
    system: sparse files are passed over then, and names may be any bytes.
    """

    def __init__(self, stream: TarStream, archive: str, kinds: frozenset[Kind] = PLAIN) -> None:
        self._stream = stream
        self._archive = archive
        self._kinds = kinds
        self._any_name = kinds == EVERY
        self._position = 0
        self._unread = 0
        self._padding = 0
        self._name_bytes = 0

    def content(self) -> bytes:
        """The whole content of the member yielded last; bounded by the caller, who knows its size."""
        content = self._take(self._unread, "a member's content")
        self._unread = 0
        return content

    def start(self, limit_bytes: int) -> bytes:
        """Up to ``limit_bytes`` of the start of the member yielded last, or of what was not read of it yet."""
        content = self._take(min(self._unread, limit_bytes), "a member's content")
        self._unread -= len(content)
        return content

    def members(self) -> Iterator[TarMember]:
        """Every member in order, then checks the archive's end.

        Raises CheckpointInvalid: ArchiveTruncated, ArchiveDamaged, MemberName, MemberKind, MemberDuplicate,
        MemberTooLarge, TooManyMembers.
        """
        seen: dict[str, bool] = {}
        extension = _Extension()
        while True:
            self._finish_member()
            header = self._take(BLOCK_BYTES, "a member's header")
            if header == _EMPTY:
                if extension.used:
                    raise self._damaged("an extended header describes no member")
                self._end()
                return
            flag = self._checked_flag(header)
            size = self._number(header[124:136], "size")
            if flag in (b"x", b"g", b"L", b"K"):
                self._extend(extension, flag, size)
                continue
            name = extension.name if extension.name is not None else self._name(header)
            size = extension.size if extension.size is not None else size
            target, owner, raising = extension.target, extension.owner, extension.capabilities
            extension = _Extension()
            clean = normalised(name, self._archive, printable=not self._any_name)
            kind = self._kind(flag, name)
            if kind != "file" and size:
                raise self._damaged(f"{kind} {quoted(name)} has content")
            if flag == b"S":
                self._skip_sparse_map(header)
            if size > MEMBER_BYTES_MAX:
                raise CheckpointInvalid("MemberTooLarge", f"{self._archive}: member {quoted(name)} claims {size} bytes")
            self._remember(seen, clean, kind == "directory")
            self._unread = size
            self._padding = -size % BLOCK_BYTES
            node = kind in ("character device", "block device")
            device = (
                (self._number(header[329:337], "major"), self._number(header[337:345], "minor")) if node else (0, 0)
            )
            mode = self._number(header[100:108], "mode") & 0o7777
            if kind not in ("hard link", "symbolic link"):
                target = ""
            elif target is None:
                target = header[157:257].split(b"\0", 1)[0].decode(errors="backslashreplace")
            uid = owner.get("uid", self._number(header[108:116], "uid"))
            gid = owner.get("gid", self._number(header[116:124], "gid"))
            text = header[136:148].strip(b" \0")
            modified = int(text, 8) if text and not text.strip(b"01234567") else 0
            yield TarMember(clean, kind, self._position, size, mode, device, target, uid, gid, raising, modified)

    def _take(self, size: int, what: str) -> bytes:
        found = self._stream.read_exactly(size)
        self._position += len(found)
        if len(found) != size:
            raise self._truncated(what)
        return found

    def _finish_member(self) -> None:
        rest = self._unread + self._padding
        if rest:
            moved = self._stream.skip(rest)
            self._position += moved
            if moved != rest:
                raise self._truncated("a member's content")
        self._unread = self._padding = 0

    def _end(self) -> None:
        """The end of an archive is two blocks of zeros; anything but zeros after it is hidden from some readers."""
        if self._take(BLOCK_BYTES, "the end-of-archive mark") != _EMPTY:
            raise self._damaged("a single zero block stands between members")
        read = 0
        while rest := self._stream.read_exactly(64 << 10):
            read += len(rest)
            if rest.strip(b"\0") or read > PADDING_BYTES_MAX:
                raise self._damaged("something follows the end of the archive")

    def _checked_flag(self, header: bytes) -> bytes:
        wanted = self._number(header[148:156], "checksum")
        blanked = header[:148] + b" " * 8 + header[156:]
        unsigned = sum(blanked)
        # some old tars summed signed characters
        if wanted != unsigned and wanted != unsigned - 256 * sum(byte > 127 for byte in blanked):
            raise self._damaged(f"the header at byte {self._position - BLOCK_BYTES} has a wrong checksum")
        return header[156:157]

    def _number(self, field: bytes, what: str) -> int:
        """Octal text, or base 256 when the top bit is set (GNU tar, "Basic Tar Format")."""
        if field[0] == 0x80:
            return int.from_bytes(field[1:])
        text = field.strip(b" \0")
        try:
            if text.strip(b"01234567"):
                raise ValueError
            return int(text or b"0", 8)
        except ValueError:
            raise self._damaged(f"the header at byte {self._position - BLOCK_BYTES} has no valid {what}") from None

    def _name(self, header: bytes) -> str:
        name = header[:100].split(b"\0", 1)[0]
        if header[257:263] == b"ustar\0":
            star = header[508:512] == b"tar\0"
            prefix = header[345 : 476 if star else 500].split(b"\0", 1)[0]
            name = prefix + b"/" + name if prefix else name
        return self._decoded(name)

    def _decoded(self, name: bytes) -> str:
        try:
            text = name.decode(errors="backslashreplace" if self._any_name else "strict")
        except UnicodeDecodeError:
            raise CheckpointInvalid("MemberName", f"{self._archive}: member {quoted(name)} is not UTF-8") from None
        if not text:
            raise CheckpointInvalid("MemberName", f"{self._archive} has a member without a name")
        return text

    def _kind(self, flag: bytes, name: str) -> Kind:
        kind = _KINDS.get(flag)
        if flag == b"S" and self._kinds == EVERY:
            kind = "file"
        if kind not in self._kinds:
            what = f"a {kind}" if kind else "a sparse file" if flag == b"S" else f"of the unknown kind {quoted(flag)}"
            raise CheckpointInvalid(
                "MemberKind", f"{self._archive}: member {quoted(name)} is {what}; only files and directories are read"
            )
        if kind != "directory" and (name.endswith("/") or not normalised(name, self._archive, printable=False)):
            raise self._damaged(f"{kind} {quoted(name)} is named like a directory")
        return kind

    def _skip_sparse_map(self, header: bytes) -> None:
        """Old GNU sparse files: the map of holes goes on in blocks of its own (GNU tar manual, "Old GNU Format")."""
        more = header[482]
        while more:
            more = self._take(BLOCK_BYTES, "a sparse file's map")[504]

    def _remember(self, seen: dict[str, bool], name: str, directory: bool) -> None:
        if name in seen and not (directory and seen[name]):
            raise CheckpointInvalid("MemberDuplicate", f"{self._archive} has member {quoted(name)} twice")
        seen[name] = directory
        self._name_bytes += len(name)
        parent = name
        while parent := parent.rpartition("/")[0]:
            if parent not in seen:
                seen[parent] = True
                self._name_bytes += len(parent)
            elif not seen[parent]:
                raise CheckpointInvalid(
                    "MemberDuplicate", f"{self._archive}: {quoted(parent)} is a file and a directory at once"
                )
        if len(seen) > MEMBERS_MAX or self._name_bytes > NAMES_BYTES_MAX:
            raise CheckpointInvalid(
                "TooManyMembers", f"{self._archive} has more than {MEMBERS_MAX} members or too long names"
            )

    def _extend(self, extension: _Extension, flag: bytes, size: int) -> None:
        if size > EXTENSION_BYTES_MAX:
            raise self._damaged(f"an extended header claims {size} bytes")
        self._unread, self._padding = size, -size % BLOCK_BYTES
        content = self.content()
        if flag == b"K":
            extension.target = content.split(b"\0", 1)[0].decode(errors="backslashreplace")
            return
        if flag == b"L":
            if extension.used:
                raise self._damaged("a member has two extended headers")
            extension.used = True
            extension.name = self._decoded(content.split(b"\0", 1)[0])
            return
        if flag == b"x":
            if extension.used:
                raise self._damaged("a member has two extended headers")
            extension.used = True
        for key, value in self._records(content):
            if key.startswith("GNU.sparse.") and self._kinds != EVERY:
                raise CheckpointInvalid("MemberKind", f"{self._archive} has a sparse file; only plain files are read")
            if flag == b"g" and key in ("path", "size", "linkpath"):
                raise self._damaged(f"a global header sets {key}")
            if key in ("path", "GNU.sparse.name"):
                extension.name = self._decoded(value)
            elif key == "linkpath":
                extension.target = value.decode(errors="backslashreplace")
            elif key in ("uid", "gid"):
                if not value.isdigit() or len(value) > 20:
                    raise self._damaged(f"an extended header has no valid {key}")
                extension.owner[key] = int(value)
            elif key.endswith("security.capability"):
                extension.capabilities = True
            elif key == "size":
                if not value.isdigit() or len(value) > 20:
                    raise self._damaged("an extended header has no valid size")
                extension.size = int(value)

    def _records(self, content: bytes) -> Iterator[tuple[str, bytes]]:
        """``LENGTH KEY=VALUE\\n``, where LENGTH counts the whole record."""
        while content:
            digits, space, _ = content[:21].partition(b" ")
            if not space or not digits.isdigit() or not len(digits) + 3 <= (length := int(digits)) <= len(content):
                raise self._damaged("an extended header has a record of the wrong length")
            record, content = content[len(digits) + 1 : length], content[length:]
            key, equals, value = record.partition(b"=")
            if not equals or value[-1:] != b"\n":
                raise self._damaged("an extended header has a record without a value or an end")
            yield key.decode(errors="backslashreplace"), value[:-1]

    def _truncated(self, what: str) -> CheckpointInvalid:
        return CheckpointInvalid(
            "ArchiveTruncated", f"{self._archive} ends at byte {self._position} in the middle of {what}; copy it again"
        )

    def _damaged(self, what: str) -> CheckpointInvalid:
        return CheckpointInvalid("ArchiveDamaged", f"{self._archive} is not a sound tar archive: {what}")


@dataclass(slots=True)
class _Extension:
    """What extended headers said about the member that follows."""

    used: bool = False
    name: str | None = None
    size: int | None = None
    target: str | None = None
    owner: dict[str, int] = field(default_factory=dict)
    capabilities: bool = False
