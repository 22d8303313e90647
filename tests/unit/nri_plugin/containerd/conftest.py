from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nri_plugin.containerd.client import Containerd
from tests.support.fake_containerd import FakeContainerd


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeContainerd]:
    with FakeContainerd(tmp_path / "containerd.sock") as fake:
        yield fake


@pytest.fixture
def containerd(fake: FakeContainerd) -> Iterator[Containerd]:
    client = Containerd(fake.socket, namespace="k8s.io", snapshotter="overlayfs")
    yield client
    client.close()
