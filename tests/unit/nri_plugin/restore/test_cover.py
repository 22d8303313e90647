"""Which of a process' open files are looked at: all that a path leads to."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nri_plugin.restore.cover import elsewhere, open_files


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[set[str]]:
    """Paths of a process that has an ordinary file open, one whose name looks deleted, and two that are."""
    names = ("plain", "looks (deleted)", "gone", "gone (deleted)")
    opened = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in names]
    for name in names[2:]:
        (tmp_path / name).unlink()
    process = subprocess.Popen(["sleep", "60"], pass_fds=opened)
    process.send_signal(signal.SIGSTOP)  # as restored processes are
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
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


def test_file_of_an_ended_process_is_passed_over() -> None:
    """No path leads to it any more, though it is not shown as deleted."""
    process = subprocess.Popen(["sleep", "60"])
    path = f"/proc/{process.pid}/stat"
    descriptor, proc = os.open(path, os.O_RDONLY), os.open("/proc", os.O_PATH)
    try:
        link = f"self/fd/{descriptor}"
        assert elsewhere([(link, path)], {path}, proc) is None
        process.kill()
        process.wait()
        assert elsewhere([(link, path)], {path}, proc) is None
        assert elsewhere([(link, path)], set(), proc) == path
    finally:
        os.close(descriptor)
        os.close(proc)


def test_file_that_is_gone_from_its_path_is_found_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "x"
    descriptor, proc = os.open(file, os.O_RDWR | os.O_CREAT), os.open("/proc", os.O_PATH)
    try:
        file.unlink()
        assert elsewhere([(f"self/fd/{descriptor}", str(file))], {str(file)}, proc) == str(file)
    finally:
        os.close(descriptor)
        os.close(proc)
