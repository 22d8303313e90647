"""The results as one self-contained SVG: a pair of bars for each measurement, ours above the rival's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from xml.sax.saxutils import escape

_WIDTH: Final = 960
_LEFT: Final = 370
_BARS: Final = 400
_ROW: Final = 46
_TOP: Final = 54

_STYLE: Final = """\
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 17px; font-weight: 600 } .small { font-size: 11px; fill: #57606a }
.ours { fill: #1f6feb } .rival { fill: #afb8c1 } .missed { fill: #cf222e }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .small { fill: #8d96a0 } .rival { fill: #57606a } }
"""


def chart(rows: Sequence[Mapping[str, Any]]) -> str:
    """Each row has a scale of its own; a missed goal is red."""
    height = _TOP + _ROW * len(rows) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">',
        f"<style>{_STYLE}</style>",
        '<text x="16" y="28" class="title">nri-restore: medians of runs that took turns; shorter is better</text>',
    ]
    for number, row in enumerate(rows):
        parts += _row(row, _TOP + number * _ROW)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _row(row: Mapping[str, Any], top: int) -> list[str]:
    ours, rival, unit = row["ours"], row["rival"], row["unit"]
    longest = max(ours, rival or 0) or 1
    missed = " missed" if row["met"] is False else ""
    drawn = [
        f'<text x="{_LEFT - 12}" y="{top + 13}" text-anchor="end">{escape(row["name"])}</text>',
        f'<text x="{_LEFT - 12}" y="{top + 28}" text-anchor="end" class="small">{escape(_goal(row))}</text>',
        *_bar(ours, longest, unit, "ours", f"ours{missed}", top),
    ]
    if rival is not None:
        drawn += _bar(rival, longest, unit, row["rival_name"], "rival", top + 17)
    return drawn


def _goal(row: Mapping[str, Any]) -> str:
    return f"goal: {row['goal']}" if row["goal"] else ""


def _bar(value: float, longest: float, unit: str, who: str, kind: str, top: int) -> list[str]:
    width = max(1, round(_BARS * value / longest))
    label = f"{value:.4g} {unit} {who}"
    return [
        f'<rect x="{_LEFT}" y="{top}" width="{width}" height="15" rx="2" class="{kind}"/>',
        f'<text x="{_LEFT + width + 6}" y="{top + 12}" class="small">{escape(label)}</text>',
    ]
