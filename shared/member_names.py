"""Names of an archive's members: what is a safe one, and how an unsafe one is shown."""

from __future__ import annotations

from typing import Final

from shared.errors import CheckpointInvalid

NAME_BYTES_MAX: Final = 4096
DEPTH_MAX: Final = 32
"""Folders in each other; a checkpoint has one or two."""


def quoted(name: str | bytes) -> str:
    """A name from the archive, safe and short enough for a sentence or a log line."""
    text = name.decode(errors="backslashreplace") if isinstance(name, bytes) else name
    shown = ascii(text if len(text) <= 120 else text[:117] + "...")[1:-1]
    return f'"{shown}"'


def normalised(name: str, archive: str, *, printable: bool = True) -> str:
    """``name`` without leading ``./`` and trailing ``/``; CheckpointInvalid when it leads outside the archive.

    Empty for the archive's own top directory. Names that would garble a terminal or a log are refused as well, unless
    ``printable`` is false.
    """
    if name.startswith("/"):
        raise CheckpointInvalid("MemberName", f"{archive}: member {quoted(name)} has an absolute name")
    if "\0" in name:
        raise CheckpointInvalid("MemberName", f"{archive}: member {quoted(name)} has a zero byte in its name")
    if printable and not name.isprintable():
        raise CheckpointInvalid("MemberName", f"{archive}: member {quoted(name)} has control characters in its name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise CheckpointInvalid("MemberName", f'{archive}: member {quoted(name)} has ".." in its name')
    if len(parts) > DEPTH_MAX or len(name.encode()) > NAME_BYTES_MAX or any(len(part.encode()) > 255 for part in parts):
        raise CheckpointInvalid("MemberName", f"{archive}: member {quoted(name)} has too long a name")
    return "/".join(parts)
