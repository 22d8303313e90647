from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from shared.archive import CheckpointFiles, open_checkpoint
from tests.support.checkpoints import SyntheticDump, tar_of


@pytest.fixture
def dumped(tmp_path: Path) -> Iterator[Callable[[SyntheticDump | Mapping[str, bytes]], CheckpointFiles]]:
    """Opens a dump, or its files by name, as an archive that has nothing else."""
    with ExitStack() as stack:
        count = 0

        def opener(dump: SyntheticDump | Mapping[str, bytes]) -> CheckpointFiles:
            nonlocal count
            count += 1
            path = tmp_path / f"dump-{count}.tar"
            path.write_bytes(tar_of(dump.files() if isinstance(dump, SyntheticDump) else dump))
            return stack.enter_context(open_checkpoint(path))

        yield opener


@pytest.fixture
def sample_images(sample: Path) -> dict[str, bytes]:
    """The CRIU images of a real checkpoint."""
    with open_checkpoint(sample) as files:
        start = "checkpoint/"
        return {name[len(start) :]: files.read(name, 1 << 20) for name in files.names() if name.startswith(start)}
