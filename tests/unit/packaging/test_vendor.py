"""What goes into a package is for its architecture."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

import pytest

from tools.vendor import check_machine


def test_library_of_another_architecture_is_found(tmp_path: Path) -> None:
    here = platform.machine()
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[here]
    library = Path(shutil.copy(sys.executable, tmp_path / "library.so"))
    check_machine(library, here)
    with pytest.raises(SystemExit, match=f"not for {other}"):
        check_machine(library, other)
