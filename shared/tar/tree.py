"""The names of an archive's members against each other: none twice, and none below a file.

Sources: OCI image-spec layer.md (whiteouts); containerd pkg/archive/tar.go and moby pkg/archive/diff.go, whose code for
AUFS reads more from names with ``.wh..wh.`` in front.
"""

from __future__ import annotations

from typing import Final

from shared.errors import CheckpointInvalid
from shared.member_names import quoted
from shared.tar.header import Kind
from shared.tar.rules import Whiteouts
from shared.tar.unsound import Ambiguous

MEMBERS_MAX: Final = 100_000
"""containerd's own limit for a checkpoint's entries (PR 13822)."""
NAMES_BYTES_MAX: Final = 16 << 20
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"


class Tree:
    """Every name so far; the folders above a member count as well."""

    def __init__(self, archive: str, whiteouts: Whiteouts) -> None:
        self._archive = archive
        self._whiteouts = whiteouts
        self._seen: dict[str, bool] = {}
        """Whether each name is a folder's."""
        self._bytes = 0

    def add(self, name: str, kind: Kind, size: int) -> None:
        """Takes one more member. Raises CheckpointInvalid (MemberDuplicate, TooManyMembers), Ambiguous."""
        if self._whiteouts != "ordinary" and _WHITEOUT in name:
            self._check_whiteout(name, kind, size)
        seen, directory = self._seen, kind == "directory"
        if name in seen and not (directory and seen[name]):
            raise CheckpointInvalid("MemberDuplicate", f"{self._archive} has member {quoted(name)} twice")
        self._remember(name, directory=directory)
        parent = name
        while parent := parent.rpartition("/")[0]:
            if parent not in seen:
                self._remember(parent, directory=True)
            elif not seen[parent]:
                raise CheckpointInvalid(
                    "MemberDuplicate", f"{self._archive}: {quoted(parent)} is a file and a directory at once"
                )
            else:
                break
        if len(seen) > MEMBERS_MAX or self._bytes > NAMES_BYTES_MAX:
            raise CheckpointInvalid(
                "TooManyMembers", f"{self._archive} has more than {MEMBERS_MAX} members or too long names"
            )

    def _remember(self, name: str, *, directory: bool) -> None:
        self._seen[name] = directory
        self._bytes += len(name)

    def _check_whiteout(self, name: str, kind: Kind, size: int) -> None:
        folder, _, last = name.rpartition("/")
        if not last.startswith(_WHITEOUT) and not any(part.startswith(_WHITEOUT) for part in folder.split("/")):
            return
        if self._whiteouts == "refused":
            raise Ambiguous("its name has .wh. in front, and a runtime would delete a file instead")
        hidden = last.removeprefix(_WHITEOUT)
        if any(part.startswith(_WHITEOUT) for part in folder.split("/")) or (
            last != _OPAQUE and (hidden in ("", ".", "..") or hidden.startswith(_WHITEOUT))
        ):
            raise Ambiguous("it deletes something that runtimes do not agree on")
        if kind != "file" or size:
            raise Ambiguous("it deletes a file and is more than an empty file itself")
        if last != _OPAQUE:
            deleted = f"{folder}/{hidden}" if folder else hidden
            if deleted in self._seen:
                # The specification lets a whiteout hide lower layers only, containerd also what came before it.
                raise Ambiguous(f"it deletes {quoted(deleted)}, which the archive itself brought before")
