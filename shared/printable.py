"""Foreign text fit for a terminal, a log line, an Event or a page: nothing that one of these would obey."""

from __future__ import annotations

from typing import Final

LIMIT: Final = 4096
"""Characters of one text; more is no help to who reads it, and a checkpoint can hold megabytes."""


def safe(text: str, limit: int = LIMIT) -> str:
    """Printable characters as they are, others as ``\\x1b``; what is longer than ``limit`` ends in ``…``.

    Not printable are control characters, line breaks, surrogates, and what turns or hides text (str.isprintable).
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
