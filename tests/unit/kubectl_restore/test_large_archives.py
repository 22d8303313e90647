"""However large an archive is, the commands that read one take little memory.

The limit is that of archives of 10 GiB; one a few times the limit tells whether any of it stays in memory.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.base_image import BaseImage
from tests.support.large_archive import write_large_archive

MEMORY_BYTES = 512 << 20
RSS_MIB_MAX = 150
_PROGRAM = """
import sys
from kubectl_restore.cli import main
try:
    main()
except SystemExit as end:
    # check's 1 is its finding that this machine could not restore it
    assert not end.code or sys.argv[1] == "check", end.code
with open("/proc/self/status") as status:
    sys.stderr.write("\\n" + status.read())
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_large_archive(tmp_path_factory.mktemp("large") / "checkpoint.tar", MEMORY_BYTES)


@pytest.mark.parametrize(
    "words",
    [
        ("build", "--format", "archive", "--oci-layout"),
        ("build", "--format", "layered", "--compress", "zstd", "--oci-archive"),
        ("build", "--dry-run", "--oci-layout"),
        ("inspect", "-o", "json"),
        ("check",),
    ],
    ids=" ".join,
)
def test_memory_is_constant(words: tuple[str, ...], archive: Path, tmp_path: Path) -> None:
    verb, *options = words
    if verb == "build":
        options += [
            str(tmp_path / "out"),
            "-t",
            "x.example/ck:1",
            "--base",
            BaseImage().write_layout(tmp_path / "base"),
        ]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, verb, str(archive), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "error: " not in done.stderr
    assert done.stdout
    peak = re.search(r"VmHWM:\s*(\d+) kB", done.stderr)
    assert peak, done.stderr
    assert int(peak[1]) >> 10 <= RSS_MIB_MAX
