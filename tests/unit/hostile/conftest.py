"""A small checkpoint for the suite that mutates them."""

from __future__ import annotations

import pytest

from tests.hostile.generator.sample import Sample
from tests.support.checkpoints import SyntheticDump, containerd, tar_of


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    archive = tmp_path_factory.mktemp("sample") / "checkpoint.tar"
    archive.write_bytes(tar_of(containerd(SyntheticDump.of_processes(2))))
    return Sample.of("ordinary", archive)
