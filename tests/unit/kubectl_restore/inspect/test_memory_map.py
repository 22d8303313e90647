from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from kubectl_restore.inspect.facts import Memory, MemoryArea, MemoryKind
from kubectl_restore.inspect.memory_map import (
    HEIGHT,
    PICTURED_MAX,
    WIDTH,
    picture_areas,
    picture_kinds,
    picture_part,
)


def area(start: int, size: int, dumped: int = 0, kind: str = "anonymous", path: str | None = None) -> MemoryArea:
    return MemoryArea(start, start + size, kind, "rw-p", path, dumped)


def rectangles(svg: str) -> list[dict[str, str]]:
    return [element.attrib for element in ElementTree.fromstring(svg).iter("rect")]


def test_each_area_is_drawn_pale_and_its_dumped_part_solid() -> None:
    mapped, dumped = rectangles(picture_areas([area(0x1000, 4096, 1024)]))
    assert (mapped["class"], mapped["height"], float(mapped["width"])) == ("anonymous mapped", str(HEIGHT), WIDTH)
    assert (dumped["class"], dumped["y"], dumped["height"]) == ("anonymous", "45.0", "15.0")


def test_little_is_seen_too_and_nothing_is_not() -> None:
    heights = [float(each["height"]) for each in rectangles(picture_areas([area(0, 1 << 40, 1), area(1 << 41, 4096)]))]
    assert heights == [HEIGHT, 1.5, HEIGHT, 0]


def test_areas_fill_the_picture_from_left_to_right() -> None:
    areas = [area(index << 30, 4096 << index % 5, kind="heap") for index in range(50)]
    drawn = rectangles(picture_areas(areas))[::2]
    starts = [float(each["x"]) for each in drawn]
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert float(drawn[-1]["x"]) + float(drawn[-1]["width"]) == pytest.approx(WIDTH, abs=1)


def test_neighbours_touch_and_gaps_are_seen() -> None:
    first, second, third = rectangles(
        picture_areas([area(0x1000, 0x1000), area(0x2000, 0x1000, kind="heap"), area(0x9000, 0x1000)])
    )[::2]

    def end(rectangle: dict[str, str]) -> float:
        return float(rectangle["x"]) + float(rectangle["width"])

    assert end(first) == pytest.approx(float(second["x"]), abs=0.2)
    assert float(third["x"]) - end(second) == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("kinds", [("anonymous",), ("anonymous", "file")])
def test_thousands_of_areas_are_joined(kinds: tuple[str, ...]) -> None:
    areas = [area(n << 20, 4096, 4096, kinds[n % len(kinds)]) for n in range(20_000)]
    drawn = rectangles(picture_areas(areas))
    assert 2 <= len(drawn) <= 2 * PICTURED_MAX
    assert all(0 <= float(each["x"]) <= WIDTH for each in drawn)


def test_titles_are_escaped() -> None:
    svg = picture_areas([area(0, 4096, path="/<b>&\x1b\"'")])
    assert "<b>" not in svg
    (title, *_) = [element.text for element in ElementTree.fromstring(svg).iter("title")][1:]
    assert title is not None
    assert "/<b>&\\x1b" in title


def test_no_areas_no_picture() -> None:
    assert picture_areas([]) == ""
    assert picture_kinds(Memory(0, 0, ())) == ""


def test_kinds_share_the_bar_by_what_was_dumped() -> None:
    memory = Memory(99, 40, (MemoryKind("heap", 9, 10), MemoryKind("shared file", 90, 30)))
    heap, shared = rectangles(picture_kinds(memory))
    assert (heap["class"], heap["width"], shared["class"], shared["x"], shared["width"]) == (
        "heap",
        "250.0",
        "shared-file",
        "250.0",
        "750.0",
    )


@pytest.mark.parametrize(("part", "whole", "width"), [(1, 4, "250.0"), (0, 0, "0.0"), (5, 4, "1000.0")])
def test_part_of_a_whole(part: int, whole: int, width: str) -> None:
    assert re.search(r'width="([0-9.]+)" height', picture_part("heap", part, whole))
    assert rectangles(picture_part("heap", part, whole))[0]["width"] == width
