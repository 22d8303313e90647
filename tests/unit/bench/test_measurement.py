"""Medians of runs that took turns, goals, and where the results go."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import report
from tests.bench.chart import chart
from tests.bench.measurement import Result, compare, take_turns


def test_sides_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []

    def side(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    ours, rival = take_turns(3, lambda: side("ours"), lambda: side("rival"))
    assert [set(calls[n : n + 2]) for n in range(0, 8, 2)] == [{"ours", "rival"}] * 4
    assert sorted(ours + rival) == [3, 4, 5, 6, 7, 8]


def test_every_round_counts_without_a_warm_up() -> None:
    assert take_turns(2, lambda: 1.0, warm_up=False) == [[1.0, 1.0]]


@pytest.mark.parametrize(("ours", "met"), [([9.0, 1.0, 5.0], True), ([9.0, 1.0, 5.1], False)])
def test_goal_is_judged_by_the_median(ours: list[float], met: bool) -> None:
    result = compare("start", "ms", ours, [2.0, 4.0, 3.0], "bare", goal="bare + 2 ms", limit=lambda other: other + 2)
    assert result.met is met
    assert (result.rival, result.runs) == (3.0, 3)
    assert result.ratio == result.ours / 3


def test_result_without_rival_or_goal_says_neither() -> None:
    row = compare("memory", "MiB", [1.0]).as_json()
    assert (row["rival"], row["ratio"], row["goal"], row["met"]) == (None, None, None, None)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in (
        ("FOLDER", tmp_path),
        ("RESULTS", tmp_path / "results.json"),
        ("CHART", tmp_path / "results.svg"),
        ("PAGE", tmp_path / "page.md"),
    ):
        monkeypatch.setattr(report, name, value)
    return tmp_path


def test_partial_run_keeps_what_it_did_not_measure(places: Path) -> None:
    report.keep([Result("a", "ms", 1.0), Result("b", "ms", 2.0)], partial=False)
    report.keep([Result("a", "ms", 3.0)], partial=True)
    kept = json.loads((places / "results.json").read_text())
    assert [(row["name"], row["ours"]) for row in kept] == [("a", 3.0), ("b", 2.0)]
    report.keep([Result("c", "ms", 3.0)], partial=False)
    assert [row["name"] for row in json.loads((places / "results.json").read_text())] == ["c"]


def test_page_gets_the_table_between_its_marks(places: Path) -> None:
    report.keep([Result("a", "ms", 1.0, 2.0, "bare", 3, "2 ms", 2.0)], partial=False)
    (places / "page.md").write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_page()
    page = (places / "page.md").read_text()
    assert page.startswith(f"before\n{report.BEGIN}\nMeasured on ")
    assert page.endswith(f"{report.END}\nafter\n")
    assert "| a | 1.00 ms | 2.00 ms (bare) | 0.50 | 3 | 2 ms: met |" in page
    assert "old" not in page


def test_chart_is_a_drawing_with_escaped_names_and_marks_what_missed() -> None:
    rows = [Result("a < b & c", "ms", 5.0, 2.0, "bare", goal="2 ms", limit=2.0).as_json()]
    text = chart(rows)
    root = ElementTree.fromstring(text)
    bars = [element.get("class") for element in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert bars == ["ours missed", "rival"]
    assert "a < b & c" in "".join(root.itertext())
