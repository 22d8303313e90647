"""The one reader of tar headers; where two programs could understand a header differently, it refuses the archive.

``rules``: which archive may hold what. ``header``: one block. ``pax``: extended headers. ``sparse``: maps of holes.
``tree``: names against each other. ``walk``: a whole archive.
"""

from shared.tar.header import BLOCK_BYTES, Kind
from shared.tar.rules import CHECKPOINT, DIFF, IMAGE, TMPFS, Rules
from shared.tar.tree import MEMBERS_MAX
from shared.tar.walk import MemberWalk, TarMember, TarStream

__all__ = [
    "BLOCK_BYTES",
    "CHECKPOINT",
    "DIFF",
    "IMAGE",
    "MEMBERS_MAX",
    "TMPFS",
    "Kind",
    "MemberWalk",
    "Rules",
    "TarMember",
    "TarStream",
]
