"""Tables as kubectl prints them: upper-case heads, columns three spaces apart, nothing to draw lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Lines of the table, its head first; the keys of the first row are the head. Empty without rows."""
    if not rows:
        return ""
    heads = list(rows[0])
    lines = [heads, *([row.get(head, "") for head in heads] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )
