"""Pictures of memory as SVG: the areas of one process in address order, and amounts as bars.

Address spaces are mostly empty and sizes differ by a million, so that an area's width grows with the square root of
its size and gaps have one width; its filled height is the part that was dumped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Final

from kubectl_restore.inspect.facts import Memory, MemoryArea
from kubectl_restore.printing import size_of
from shared.printable import safe

WIDTH: Final = 1000
HEIGHT: Final = 60
PICTURED_MAX: Final = 300
"""Areas in one picture; more of them are drawn as one with their neighbours."""
_GAP: Final = 4.0
_NARROWEST: Final = 2.0


def css_class(kind: str) -> str:
    return kind.replace(" ", "-")


def picture_areas(areas: Sequence[MemoryArea]) -> str:
    """One rectangle an area, from low to high addresses; hovering tells which."""
    drawn = _merged(areas)
    if not drawn:
        return ""
    gaps = sum(after.start > before.end for before, after in pairwise(drawn))
    gap = min(_GAP, WIDTH / 4 / max(gaps, 1))
    roots = [(area.end - area.start) ** 0.5 for area in drawn]
    room = WIDTH - gap * gaps - _NARROWEST * len(drawn)
    scale = room / sum(roots)
    parts = [f'<svg class="map" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img">']
    parts.append(f"<title>{len(areas)} memory areas from low to high addresses</title>")
    x = 0.0
    for index, (area, root) in enumerate(zip(drawn, roots, strict=True)):
        if index and area.start > drawn[index - 1].end:
            x += gap
        width = _NARROWEST + root * scale
        parts.append(_area(area, x, width))
        x += width
    parts.append("</svg>")
    return "".join(parts)


def _area(area: MemoryArea, x: float, width: float) -> str:
    size = area.end - area.start
    filled = HEIGHT * min(1.0, area.dumped_bytes / size)
    filled = max(filled, 1.5) if area.dumped_bytes else 0.0
    what = f"{area.start:x}-{area.end:x} {area.access} {area.kind}{f' {safe(area.path)}' if area.path else ''}"
    title = f"{what}: {size_of(area.dumped_bytes)} dumped of {size_of(size)}"
    box = f'x="{x:.1f}" width="{width:.1f}"'
    kind = css_class(area.kind)
    return (
        f"<g><title>{escape(title)}</title>"
        f'<rect class="{kind} mapped" {box} y="0" height="{HEIGHT}"/>'
        f'<rect class="{kind}" {box} y="{HEIGHT - filled:.1f}" height="{filled:.1f}"/></g>'
    )


def _merged(areas: Sequence[MemoryArea]) -> list[MemoryArea]:
    """At most PICTURED_MAX: neighbours of one kind first, then runs of whatever lies together."""
    if len(areas) <= PICTURED_MAX:
        return list(areas)
    found: list[MemoryArea] = []
    for area in areas:
        if found and found[-1].kind == area.kind:
            found[-1] = _joined([found[-1], area])
        else:
            found.append(area)
    step = -(-len(found) // PICTURED_MAX)
    return [_joined(found[start : start + step]) for start in range(0, len(found), step)]


def _joined(areas: Sequence[MemoryArea]) -> MemoryArea:
    """The areas as one; its kind is that of the largest, and the empty space between them counts as its own."""
    largest = max(areas, key=lambda area: area.end - area.start)
    dumped = sum(area.dumped_bytes for area in areas)
    return MemoryArea(areas[0].start, areas[-1].end, largest.kind, largest.access, largest.path, dumped)


def picture_kinds(memory: Memory) -> str:
    """The dumped bytes by kind, as one bar."""
    if not memory.dumped_bytes:
        return ""
    parts = [f'<svg class="map all" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img">']
    parts.append("<title>dumped memory by kind</title>")
    x = 0.0
    for kind in memory.kinds:
        width = WIDTH * kind.dumped_bytes / memory.dumped_bytes
        title = f"<title>{escape(kind.kind)}: {size_of(kind.dumped_bytes)}</title>"
        box = f'x="{x:.1f}" y="0" width="{width:.1f}" height="{HEIGHT}"'
        parts.append(f'<g>{title}<rect class="{css_class(kind.kind)}" {box}/></g>')
        x += width
    parts.append("</svg>")
    return "".join(parts)


def picture_part(kind: str, part: int, whole: int) -> str:
    """How much of ``whole`` is ``part``, as a thin bar."""
    width = WIDTH * min(1.0, part / whole) if whole else 0
    box = f'<rect class="{css_class(kind)}" x="0" y="0" width="{width:.1f}" height="10"/>'
    return f'<svg class="bar" viewBox="0 0 {WIDTH} 10" preserveAspectRatio="none" aria-hidden="true">{box}</svg>'
