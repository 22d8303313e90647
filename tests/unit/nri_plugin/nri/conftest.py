from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path short enough for a unix socket (108 bytes), which pytest's own directories may not be."""
    with tempfile.TemporaryDirectory(prefix="nri") as folder:
        yield Path(folder) / "nri.sock"
