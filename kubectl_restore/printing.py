"""Texts of a checkpoint made safe to print, sizes and lists as people read them, and trees of them.

A checkpoint may name a process or a file anything: what would move the cursor, colour the terminal, or turn the text's
direction is shown as an escape.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Final, Literal

Style = Literal["plain", "strong", "dim", "good", "warn", "bad"]
_RICH: Final[dict[Style, str]] = {
    "plain": "",
    "strong": "bold",
    "dim": "dim",
    "good": "green",
    "warn": "yellow",
    "bad": "bold red",
}
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def safe(text: str) -> str:
    """Printable characters as they are, others as ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def size_of(size: int) -> str:
    """``1.5 MiB``; three digits at most."""
    amount, unit = float(size), 0
    while amount >= 1000 and unit < len(_UNITS) - 1:
        amount /= 1024
        unit += 1
    digits = 0 if unit == 0 or amount >= 100 else 1
    return f"{amount:.{digits}f}".removesuffix(".0") + f" {_UNITS[unit]}"


def count_of(number: int, one: str, many: str = "") -> str:
    """``1 process``, ``2 processes``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def quoted_words(words: Sequence[str]) -> str:
    """A command line a shell would take."""
    import shlex

    return shlex.join(words)


@dataclass(frozen=True)
class Piece:
    text: str
    style: Style = "plain"


@dataclass
class Branch:
    """One line of a tree and what hangs below it."""

    pieces: tuple[Piece, ...]
    below: list[Branch] = field(default_factory=list)

    @classmethod
    def of(cls, *pieces: str | Piece, below: Iterable[Branch] = ()) -> Branch:
        made = (Piece(piece) if isinstance(piece, str) else piece for piece in pieces)
        return cls(tuple(Piece(safe(piece.text), piece.style) for piece in made), list(below))

    def add(self, *pieces: str | Piece, below: Iterable[Branch] = ()) -> Branch:
        branch = Branch.of(*pieces, below=below)
        self.below.append(branch)
        return branch


def plain_lines(branch: Branch) -> Iterator[str]:
    """The tree without colours."""
    for trunk, pieces in _lines(branch):
        yield trunk + "".join(piece.text for piece in pieces)


def print_tree(branch: Branch, stream: IO[str] | None = None) -> None:
    """With colours on a terminal (unless NO_COLOR is set), plain otherwise."""
    stream = stream or sys.stdout
    if not on_terminal(stream):
        for line in plain_lines(branch):
            print(line, file=stream)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, highlight=False, no_color="NO_COLOR" in os.environ)
    for line, pieces in _lines(branch):
        text = Text(line, style="dim")
        for piece in pieces:
            text.append(piece.text, style=f"not dim {_RICH[piece.style]}" if piece.style != "dim" else "dim")
        # A wrapped line would break the tree's trunk.
        console.print(text, no_wrap=True, overflow="ellipsis", crop=True)


def on_terminal(stream: IO[str]) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _lines(branch: Branch) -> Iterator[tuple[str, tuple[Piece, ...]]]:
    """The trunk of each line and what stands beside it; no recursion: processes may hang in a chain of thousands."""
    yield "", branch.pieces
    waiting = [(child, "", index == 0) for index, child in enumerate(reversed(branch.below))]
    while waiting:
        child, indent, last = waiting.pop()
        yield f"{indent}{'└── ' if last else '├── '}", child.pieces
        deeper = indent + ("    " if last else "│   ")
        waiting += [(grandchild, deeper, index == 0) for index, grandchild in enumerate(reversed(child.below))]
