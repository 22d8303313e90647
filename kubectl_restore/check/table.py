"""A report as kubectl's tables are: headings in capitals, columns three spaces apart, the verdict above."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import IO, Final

from kubectl_restore.check.findings import Report
from kubectl_restore.printing import Piece, Style, on_terminal, print_pieces
from shared.preflight.findings import Level
from shared.printable import safe

_HEADS: Final = ("LEVEL", "CODE", "FINDING")
_SPACE: Final = 3
_NARROWEST: Final = 30
_STYLES: Final[dict[Level, Style]] = {Level.fails: "bad", Level.unknown: "warn", Level.note: "plain", Level.ok: "good"}
_VERDICTS: Final[dict[str, Style]] = {"would fail": "bad", "could not tell": "warn", "would restore": "good"}


def print_report(report: Report, stream: IO[str] | None = None) -> None:
    """On a terminal sentences are wrapped in their column; elsewhere each finding is one line."""
    stream = stream or sys.stdout
    width = shutil.get_terminal_size().columns if on_terminal(stream) else None
    print_pieces(lines_of(report, width), stream)


def lines_of(report: Report, width: int | None) -> Iterator[tuple[Piece, ...]]:
    verdict = Piece(report.verdict, _VERDICTS[report.verdict])
    yield Piece(f"{safe(report.checkpoint)}: "), verdict, Piece(f" on {safe(report.against)}")
    levels = max(len(_HEADS[0]), *(len(each.level.value) for each in report.findings)) + _SPACE
    codes = max(len(_HEADS[1]), *(len(each.code) for each in report.findings)) + _SPACE
    yield (Piece(f"{_HEADS[0]:<{levels}}{_HEADS[1]:<{codes}}{_HEADS[2]}"),)
    for each in report.findings:
        sentence = safe(each.sentence)
        room = len(sentence) if width is None else max(_NARROWEST, width - levels - codes)
        first, *more = textwrap.wrap(sentence, room, break_on_hyphens=False) or [""]
        yield Piece(f"{each.level.value:<{levels}}", _STYLES[each.level]), Piece(f"{each.code:<{codes}}{first}")
        for line in more:
            yield (Piece(" " * (levels + codes) + line),)
