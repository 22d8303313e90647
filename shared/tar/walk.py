"""Walks the headers of a tar stream that nobody vouches for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from shared.errors import CheckpointInvalid
from shared.member_names import normalised, quoted
from shared.tar.header import BLOCK_BYTES, EXTENSIONS, Header, Kind, read_header
from shared.tar.pax import EXTENSION_BYTES_MAX, Extension
from shared.tar.rules import Rules
from shared.tar.sparse import pass_gnu_map, pass_pax_map, pax_name
from shared.tar.tree import Tree
from shared.tar.unsound import Ambiguous, Damaged, Unsound

MEMBER_BYTES_MAX: Final = 1 << 44
PADDING_BYTES_MAX: Final = 1 << 20
"""Zeros after the end of the archive; tar programs pad to a record, 10 KiB as a rule."""
_EMPTY: Final = bytes(BLOCK_BYTES)
_LINKS: Final[frozenset[Kind]] = frozenset({"hard link", "symbolic link"})


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
    """Bytes in the archive; a sparse file becomes larger."""
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
    """When its content last changed: seconds since 1970."""


class MemberWalk:
    """One pass over an archive; ``content()`` reads the member just yielded."""

    def __init__(self, stream: TarStream, archive: str, rules: Rules) -> None:
        self._stream = stream
        self._archive = archive
        self._rules = rules
        self._tree = Tree(archive, rules.whiteouts)
        self._position = 0
        self._unread = 0
        self._padding = 0

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

        Raises CheckpointInvalid: ArchiveTruncated, ArchiveDamaged, ArchiveAmbiguous, MemberName, MemberKind,
        MemberDuplicate, MemberTooLarge, TooManyMembers.
        """
        extension = Extension()
        while True:
            self._finish_member()
            at = self._position
            block = self._take(BLOCK_BYTES, "a member's header")
            header: Header | None = None
            try:
                if block == _EMPTY:
                    self._end(extension)
                    return
                header = read_header(block)
                if header.flag in EXTENSIONS:
                    self._extend(extension, header)
                    continue
                member = self._member(header, extension)
            except Unsound as error:
                named = extension.name or (header.name if header else block[:100].partition(b"\0")[0])
                raise self._refused(error, at, named) from None
            extension = Extension()
            yield member

    def _member(self, header: Header, extension: Extension) -> TarMember:
        raw = extension.name if extension.name is not None else header.name
        if extension.sparse is not None:
            raw = pax_name(extension, header)
        name = self._decoded(raw)
        clean = normalised(name, self._archive, printable=not self._rules.any_name)
        kind = self._kind(header, name, clean)
        size = self._size(header, extension, kind)
        self._check_owner(header, extension)
        target = self._target(header, extension, kind)
        self._tree.add(clean, kind, size)
        self._unread, self._padding = size, -size % BLOCK_BYTES
        if header.flag == b"S":
            if extension.posix:
                raise Ambiguous("it is a sparse file of the GNU format with an extended header of another format")
            pass_gnu_map(header, lambda: self._take(BLOCK_BYTES, "a sparse file's map"))
        elif extension.sparse is not None:
            if kind != "file":
                raise Ambiguous(f"it is a {kind} and a sparse file")
            self._unread -= pass_pax_map(extension, size, lambda: self._take(BLOCK_BYTES, "a sparse file's map"))
        return TarMember(
            clean,
            kind,
            self._position,
            self._unread,
            header.mode,
            header.device,
            target,
            header.uid if extension.uid is None else extension.uid,
            header.gid if extension.gid is None else extension.gid,
            extension.capabilities,
            header.modified if extension.modified is None else extension.modified,
        )

    def _extend(self, extension: Extension, header: Header) -> None:
        if header.size > EXTENSION_BYTES_MAX:
            raise Damaged(f"an extended header claims {header.size} bytes")
        content = self._take(header.size, "an extended header")
        if self._take(-header.size % BLOCK_BYTES, "an extended header").strip(b"\0"):
            raise Ambiguous("an extended header goes on after its end")  # which Python reads
        extension.add(header.flag, content, self._rules)

    def _decoded(self, name: bytes) -> str:
        try:
            text = name.decode(errors="backslashreplace" if self._rules.any_name else "strict")
        except UnicodeDecodeError:
            raise CheckpointInvalid("MemberName", f"{self._archive}: member {quoted(name)} is not UTF-8") from None
        if not text:
            raise CheckpointInvalid("MemberName", f"{self._archive} has a member without a name")
        return text

    def _kind(self, header: Header, name: str, clean: str) -> Kind:
        kind = header.kind
        if header.flag == b"S" and not self._rules.sparse:
            kind = None
        if kind is None or kind not in self._rules.kinds:
            what = f"a {kind}" if kind else f"of the unknown kind {quoted(header.flag)}"
            if header.flag == b"S":
                what = "a sparse file"
            raise CheckpointInvalid(
                "MemberKind",
                f"{self._archive}: member {quoted(name)} is {what}; only these are read: {_listed(self._rules)}",
            )
        if kind != "directory" and (name.endswith("/") or not clean):
            raise Ambiguous(f"{kind} {quoted(name)} is named like a directory")
        return kind

    def _size(self, header: Header, extension: Extension, kind: Kind) -> int:
        size = header.size if extension.size is None else extension.size
        if header.size not in (0, size):
            raise Ambiguous(f"it has {header.size} bytes by its header and {size} by its extended header")
        if kind != "file" and size:
            raise Ambiguous(f"it is a {kind} and has content")
        if size > MEMBER_BYTES_MAX:
            name = extension.name or header.name
            raise CheckpointInvalid("MemberTooLarge", f"{self._archive}: member {quoted(name)} claims {size} bytes")
        return size

    def _check_owner(self, header: Header, extension: Extension) -> None:
        if not self._rules.owner_names and (header.owner_named or extension.owner_named):
            raise Ambiguous("its owner has a name, which may be that of another user on this node")

    def _target(self, header: Header, extension: Extension, kind: Kind) -> str:
        raw = header.target if extension.target is None else extension.target
        if kind not in _LINKS:
            if raw:
                raise Ambiguous("it names a link target and is no link")
            return ""
        if not raw:
            raise Ambiguous("it is a link to nothing")
        return raw.decode(errors="backslashreplace")

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

    def _end(self, extension: Extension) -> None:
        """The end of an archive is two blocks of zeros; anything but zeros after it is hidden from some readers."""
        if extension.used:
            raise Damaged("an extended header describes no member")
        if self._take(BLOCK_BYTES, "the end-of-archive mark") != _EMPTY:
            raise Ambiguous("a single zero block stands between members")
        read = 0
        while rest := self._stream.read_exactly(64 << 10):
            read += len(rest)
            if rest.strip(b"\0") or read > PADDING_BYTES_MAX:
                raise Ambiguous("something follows the end of the archive")

    def _refused(self, error: Unsound, at: int, name: bytes) -> CheckpointInvalid:
        place = f"{self._archive}, member {quoted(name)} at byte {at}: {error.what}"
        if isinstance(error, Ambiguous):
            return CheckpointInvalid(
                error.reason,
                f"{place}; programs that unpack tar archives differ in what this means, so take a new checkpoint",
            )
        return CheckpointInvalid(error.reason, f"{place}; this is no sound tar archive, so copy it again")

    def _truncated(self, what: str) -> CheckpointInvalid:
        return CheckpointInvalid(
            "ArchiveTruncated", f"{self._archive} ends at byte {self._position} in the middle of {what}; copy it again"
        )


def _listed(rules: Rules) -> str:
    return ", ".join(sorted(rules.kinds))
