"""Why a tar archive is refused; ``MemberWalk`` adds the archive's name."""

from __future__ import annotations


class Unsound(Exception):
    """A header that is refused; ``what`` is a sentence without its end."""

    reason = "ArchiveDamaged"

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Damaged(Unsound):
    """A header that no program could read."""


class Ambiguous(Unsound):
    """A header that programs read differently."""

    reason = "ArchiveAmbiguous"
