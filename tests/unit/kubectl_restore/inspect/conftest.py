from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from kubectl_restore.inspect.facts import Inspection
from kubectl_restore.inspect.gather import gather
from shared.archive import open_checkpoint
from shared.compression import Compression
from tests.support.checkpoints import SyntheticDump, containerd, tar_of

Gather = Callable[..., Inspection]


@pytest.fixture
def inspected(tmp_path: Path) -> Gather:
    """What is found in a dump, put into a checkpoint of containerd unless it is one already."""

    def read(content: SyntheticDump | Mapping[str, bytes], compression: Compression = Compression.NONE) -> Inspection:
        files = containerd(content) if isinstance(content, SyntheticDump) else content
        path = tmp_path / "checkpoint.tar"
        path.write_bytes(tar_of(files, compression))
        with open_checkpoint(path) as opened:
            return gather(opened, "checkpoint.tar")

    return read
