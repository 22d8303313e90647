"""Either process comes up without the modules it does not need, and with all where a grpc cannot do without."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LOADED = "import sys; print(*sorted(name for name, module in sys.modules.items() if module))"


def python(script: str, *paths: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT]))},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("start", "absent"),
    [
        (
            "from nri_plugin.process import *; leave_out(*UNUSED); import nri_plugin.daemon",
            {"grpc", "typer", "tomllib"},
        ),
        ("from nri_plugin.process import *; leave_out(*UNUSED); load_grpc(); import nri_plugin.worker", {"asyncio"}),
    ],
    ids=["session", "worker"],
)
def test_process_loads_nothing_it_does_not_need(start: str, absent: set[str]) -> None:
    loaded = set(python(f"{start}; {LOADED}").split())
    assert "nri_plugin.restore.plan" in loaded
    assert not loaded & {"ssl", "_hashlib", "bz2", "lzma", "rich", "zstandard", *absent}


def test_worker_starts_again_with_asyncio_for_a_grpc_that_needs_it(tmp_path: Path) -> None:
    (tmp_path / "grpc.py").write_text("import asyncio\n")
    script = (
        "import os; os.execv = lambda program, words: print(*words[1:])\n"
        "from nri_plugin.process import load_grpc; load_grpc('worker-with-asyncio', '3')"
    )
    assert python(script, tmp_path) == "-m nri_plugin.process worker-with-asyncio 3\n"


@pytest.mark.parametrize("role", ["worker", "worker-with-asyncio"])
def test_worker_ends_when_the_session_closes_its_side(role: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        words = [sys.executable, "-m", "nri_plugin.process", role, str(theirs.fileno())]
        worker = subprocess.Popen(words, pass_fds=[theirs.fileno()], cwd=ROOT)
        theirs.close()
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(1)
        ours.close()
        assert worker.wait(60) == 0
