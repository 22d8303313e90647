"""Which of a process' open files are looked at: all that a path leads to."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nri_plugin.restore.cover import open_files


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[set[str]]:
    """Paths of a process that has an ordinary file open, one whose name looks deleted, and two that are."""
    names = ("plain", "looks (deleted)", "gone", "gone (deleted)")
    opened = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in names]
    for name in names[2:]:
        (tmp_path / name).unlink()
    process = subprocess.Popen(["sleep", "60"], pass_fds=opened)
    try:
        yield {path.removeprefix(f"{tmp_path}/") for _, path in open_files(process.pid)}
    finally:
        process.kill()
        process.wait()
        for each in opened:
            os.close(each)


def test_file_is_looked_at_unless_it_was_deleted(shown: set[str]) -> None:
    assert {"plain", "looks (deleted)"} <= shown
    assert not {path for path in shown if path.startswith("gone")}
