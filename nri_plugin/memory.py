"""Keeps a long-running process small."""

from __future__ import annotations

import ctypes
from typing import Final

_trim: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """Returns freed memory to the kernel: glibc keeps it, for each thread apart (malloc_trim(3)); others do not."""
    if _trim is not None:
        _trim(0)
