"""Where results go: results.json, a table, a chart, and the table in docs/benchmarks.md."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.chart import chart
from tests.bench.measurement import Result
from tests.e2e.node.places import CHECKOUT

FOLDER: Final = CHECKOUT / "build" / "bench"
RESULTS: Final = FOLDER / "results.json"
CHART: Final = FOLDER / "results.svg"
PAGE: Final = CHECKOUT / "docs" / "benchmarks.md"
BEGIN: Final = "<!-- results: written by `python -m tests.bench --write-docs` -->"
END: Final = "<!-- /results -->"

Row = Mapping[str, Any]
"""One result as results.json has it."""


def keep(results: Sequence[Result], *, partial: bool) -> list[Row]:
    """Writes results.json and the chart; ``partial`` keeps what an earlier run measured and this one did not."""
    new = [result.as_json() for result in results]
    old = json.loads(RESULTS.read_text()) if partial and RESULTS.exists() else []
    before = {row["name"]: row for row in new}
    rows: list[Row] = [before.pop(row["name"], row) for row in old]
    rows += before.values()
    FOLDER.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    CHART.write_text(chart(rows))
    return rows


def figure(value: float | None, unit: str) -> str:
    """``12.3 ms``; empty for nothing."""
    if value is None:
        return ""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f} {unit}"


def verdict(row: Row) -> str:
    return {True: "met", False: "MISSED", None: ""}[row["met"]]


def cells(row: Row) -> tuple[str, ...]:
    rival = f"{figure(row['rival'], row['unit'])} ({row['rival_name']})" if row["rival"] is not None else ""
    ratio = f"{row['ratio']:.2f}" if row["ratio"] is not None else ""
    goal = f"{row['goal']}: {verdict(row)}" if row["goal"] else ""
    return row["name"], figure(row["ours"], row["unit"]), rival, ratio, str(row["runs"]), goal


HEADINGS: Final = ("measurement", "ours", "rival", "ratio", "runs", "goal")


def table(rows: Sequence[Row]) -> str:
    """For a terminal."""
    lines = [HEADINGS, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def write_page() -> None:
    """Puts results.json into docs/benchmarks.md, with this machine's facts and the day it was written."""
    rows: list[Row] = json.loads(RESULTS.read_text())
    day = datetime.datetime.fromtimestamp(RESULTS.stat().st_mtime, datetime.UTC).date()
    lines = [f"Measured on {day} on {machine()}.", "", f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|"]
    lines += [f"| {' | '.join(cells(row))} |" for row in rows]
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    text = "\n".join(lines)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def machine() -> str:
    """``2 CPUs (Model), 23 GiB of memory, Linux 6.12.0, Python 3.11.2``."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in cpus if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"{os.cpu_count()} CPUs ({model}), {memory:.0f} GiB of memory, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )
