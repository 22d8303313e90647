from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nri_plugin.restore.oldlog import log_lines
from shared.archive import open_checkpoint
from tests.support.checkpoints import tar_of

ASKED = datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC)
Kept = Callable[..., list[str]]


def line(text: str, milliseconds: float = -1000, rest: str = "stdout F") -> str:
    """A line of the log written so long after the checkpoint was asked for."""
    written = ASKED + timedelta(milliseconds=milliseconds)
    return f"{written.strftime('%Y-%m-%dT%H:%M:%S.%f')}789Z {rest} {text}\n"


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Texts of the lines that are taken over from a log."""

    def of(
        lines: Sequence[str],
        *,
        cap_bytes: int = 1 << 20,
        asked_at: datetime | None = ASKED,
        frozen_s: float | None = 0.1,
    ) -> list[str]:
        archive = tmp_path / "archive.tar"
        archive.write_bytes(tar_of({"container.log": "".join(lines).encode()}))
        with open_checkpoint(archive) as files:
            found = log_lines(files, "container.log", cap_bytes, asked_at=asked_at, frozen_s=frozen_s)
        return [each.split(" ", 3)[3] for each in found.decode().splitlines()]

    return of


def test_lines_after_the_freeze_are_left_out_and_those_just_before_it_are_not(kept: Kept) -> None:
    lines = [line("1", -60), line("2", 5), line("3", 30), line("4", 240), line("5", 250), line("6", 260)]
    assert kept(lines) == ["1", "2", "3"]


def test_slow_container_wrote_nothing_between_the_request_and_the_freeze(kept: Kept) -> None:
    assert kept([line("1", -900), line("2", 200), line("3", 1200)]) == ["1"]


def test_without_the_time_of_the_freeze_what_came_after_the_request_is_left_out(kept: Kept) -> None:
    assert kept([line("1", -10), line("2", 5), line("3", 30)], frozen_s=None) == ["1"]


def test_without_the_time_of_the_request_all_lines_are_taken(kept: Kept) -> None:
    assert kept([line("1", -10), line("2", 5), line("3", 9000)], asked_at=None) == ["1", "2", "3"]


def test_other_time_zones_are_compared_rightly(kept: Kept) -> None:
    before = "2026-01-02T05:04:05.400000000+02:00 stdout F before\n"
    after = "2026-01-02T02:04:05.700000000-01:00 stdout F after\n"
    assert kept([before, after]) == ["before"]


@pytest.mark.parametrize(
    "bad",
    [
        "no CRI log\n",
        "2026-01-02T03:04:05Z stdin F text\n",
        "2026-01-02T03:04:05Z stdout X text\n",
        "\0" * 100 + "\n",
        line("x" * (17 << 10)),
    ],
)
def test_what_is_no_line_of_a_cri_log_is_left_out(kept: Kept, bad: str) -> None:
    assert kept([line("1"), bad, line("2")]) == ["1", "2"]


def test_line_that_was_not_finished_is_left_out(kept: Kept) -> None:
    assert kept([line("1"), line("2").rstrip()]) == ["1"]


def test_partial_lines_pass(kept: Kept) -> None:
    assert kept([line("half", rest="stderr P"), line("whole", rest="stderr F")]) == ["half", "whole"]


def test_only_the_last_lines_pass_when_there_are_too_many(kept: Kept) -> None:
    lines = [line(f"{number:03}") for number in range(100)]
    assert kept(lines, cap_bytes=len(lines[0]) * 3 + 1) == ["097", "098", "099"]
