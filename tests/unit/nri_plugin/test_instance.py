"""One nri-restore on a node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nri_plugin.config import Config, Paths
from nri_plugin.instance import only_instance, runs_on
from shared.errors import Unavailable


def test_second_instance_is_refused_until_the_first_is_gone(config: Config) -> None:
    first = only_instance(config)
    with pytest.raises(Unavailable) as refused:
        only_instance(config)
    assert refused.value.reason == "AlreadyRunning"
    assert runs_on(config.paths.plans)
    os.close(first)
    assert not runs_on(config.paths.plans)
    os.close(only_instance(config))


def test_plans_that_cannot_be_made_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable) as refused:
        only_instance(Config(paths=Paths(plans=tmp_path / "file/plans")))
    assert refused.value.reason == "NodeStorageFailed"
