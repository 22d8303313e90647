"""What an archive may hold, by who wrote it and who unpacks it.

Sources: criu/filesystems.c (tmpfs_dump: GNU tar with --sparse and --numeric-owner; tmpfs_restore: without the latter);
containerd pkg/archive/tar.go and containers/storage pkg/archive/archive.go (what both write and apply).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from shared.tar.header import Kind

Whiteouts = Literal["refused", "applied", "ordinary"]


@dataclass(frozen=True, slots=True)
class Rules:
    """Which members and records an archive may have."""

    kinds: frozenset[Kind]
    any_name: bool = True
    """Whether names may be any bytes; otherwise they are printable UTF-8."""
    sparse: bool = False
    """Whether files may have holes, in the two forms that GNU tar writes."""
    owner_names: bool = True
    """Whether owners may have names; GNU tar prefers those to the numbers, Go's archive/tar does not read them."""
    attributes: bool = True
    """Whether files may have extended attributes."""
    whiteouts: Whiteouts = "ordinary"
    """What a name with ``.wh.`` in front means (OCI image-spec, layer.md)."""
    foreign: bool = False
    """Whether there may be records that only programs understand which do not unpack it."""


CHECKPOINT: Final = Rules(frozenset({"file", "directory"}), any_name=False, whiteouts="refused")
"""A checkpoint archive: we read it where it lies, or a runtime unpacks it as a layer."""
EVERY_KIND: Final[frozenset[Kind]] = frozenset(
    {"file", "directory", "hard link", "symbolic link", "character device", "block device", "FIFO"}
)
TMPFS: Final = Rules(EVERY_KIND, sparse=True, owner_names=False, attributes=False)
"""The content of a tmpfs mount, which GNU tar wrote for CRIU and will unpack for it."""
DIFF: Final = Rules(EVERY_KIND, whiteouts="applied")
"""What a container changed in its root: a layer that the runtime's Go program wrote and will unpack."""
IMAGE: Final = Rules(EVERY_KIND, foreign=True)
"""A layer of a base image, or an OCI archive. Many programs write those; the runtime takes them from a registry without
our help, as for any pod, and we only look files up in them."""
