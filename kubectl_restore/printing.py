"""Texts of a checkpoint made safe to print, sizes and lists as people read them, and trees of them.

A checkpoint may name a process or a file anything: what would move the cursor, colour the terminal, or turn the text's
direction is shown as an escape.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Final, Literal

from shared.printable import safe

Style = Literal["plain", "strong", "dim", "good", "warn", "bad"]
_RICH: Final[dict[Style, str]] = {
    "plain": "",
    "strong": "bold",
    "dim": "dim",
    "good": "green",
    "warn": "yellow",
    "bad": "bold red",
}
_ROOM_MIN: Final = 20
"""Columns that a deep branch keeps for its text."""
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


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


def print_tree(branch: Branch, stream: IO[str] | None = None) -> None:
    """With colours and wrapped lines on a terminal, one line a branch elsewhere."""
    stream = stream or sys.stdout
    if not on_terminal(stream):
        print_pieces(((Piece(trunk), *pieces) for trunk, pieces in _lines(branch)), stream)
        return
    width = shutil.get_terminal_size().columns
    print_pieces(_wrapped(_lines(branch), width), stream)


def print_pieces(lines: Iterable[tuple[Piece, ...]], stream: IO[str]) -> None:
    """One line for each; colours on a terminal unless NO_COLOR is set (no-color.org)."""
    if not on_terminal(stream) or os.environ.get("NO_COLOR"):
        for pieces in lines:
            print("".join(piece.text for piece in pieces), file=stream)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, highlight=False)
    for pieces in lines:
        # Text takes what it is given literally; a string would be read for markup.
        console.print(Text.assemble(*((piece.text, _RICH[piece.style]) for piece in pieces)), soft_wrap=True)


def on_terminal(stream: IO[str]) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _wrapped(lines: Iterable[tuple[str, tuple[Piece, ...]]], width: int) -> Iterator[tuple[Piece, ...]]:
    """Long lines go on below their start, so that the trunk stays whole."""
    for trunk, pieces in lines:
        room = max(width - len(trunk), _ROOM_MIN)
        start = trunk
        line: list[Piece] = []
        used = 0
        for piece in pieces:
            text = piece.text
            while used + len(text) > room:
                cut = text.rfind(" ", 0, room - used + 1)
                if cut <= 0:
                    cut = room - used
                line.append(Piece(text[:cut], piece.style))
                yield Piece(start, "dim"), *line
                text = text[cut:].removeprefix(" ")
                start = trunk.replace("├── ", "│   ").replace("└── ", "    ")
                line, used = [], 0
            line.append(Piece(text, piece.style))
            used += len(text)
        yield Piece(start, "dim"), *line


def _lines(branch: Branch) -> Iterator[tuple[str, tuple[Piece, ...]]]:
    """The trunk of each line and what stands beside it; no recursion: processes may hang in a chain of thousands."""
    yield "", branch.pieces
    waiting = [(child, "", index == 0) for index, child in enumerate(reversed(branch.below))]
    while waiting:
        child, indent, last = waiting.pop()
        yield f"{indent}{'└── ' if last else '├── '}", child.pieces
        deeper = indent + ("    " if last else "│   ")
        waiting += [(grandchild, deeper, index == 0) for index, grandchild in enumerate(reversed(child.below))]
