"""What the daemon keeps is dropped when nothing needs it, and only then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from nri_plugin.config import Config, Paths, Runtime
from nri_plugin.containerd import containerd_pb2 as api
from nri_plugin.instance import only_instance
from nri_plugin.node.leftovers import drop_leftovers
from nri_plugin.restore.images import LEASE_PREFIX
from shared.errors import RestoreError
from tests.support.fake_containerd import FakeContainerd

DELETE, LIST = "Leases/Delete", "Leases/List"
PLAN = "c" * 64


@pytest.fixture
def containerd(tmp_path: Path) -> Iterator[FakeContainerd]:
    with FakeContainerd(tmp_path / "containerd.sock") as containerd:
        leases = [api.Lease(id=f"{LEASE_PREFIX}aa"), api.Lease(id="another's")]
        containerd.answer(LIST, api.ListLeasesResponse(leases=leases))
        containerd.answer(DELETE, api.Empty())
        yield containerd


@pytest.fixture
def config(tmp_path: Path, containerd: FakeContainerd) -> Config:
    (tmp_path / "state/images").mkdir(parents=True)
    (tmp_path / "state/pulls").mkdir()
    (tmp_path / "run" / PLAN).mkdir(parents=True)
    return Config(
        runtime=Runtime(socket=tmp_path / "containerd.sock"),
        paths=Paths(tmp_path / "run", tmp_path / "state", tmp_path / "log"),
    )


def test_our_leases_plans_and_notes_go(config: Config, containerd: FakeContainerd) -> None:
    drop_leftovers(config)
    assert [api.DeleteLeaseRequest.FromString(each).id for each in containerd.asked(DELETE)] == [f"{LEASE_PREFIX}aa"]
    assert not (config.paths.plans / PLAN).exists()
    assert not list(config.paths.state.iterdir())


def test_nothing_goes_while_the_daemon_runs(config: Config, containerd: FakeContainerd) -> None:
    lock = only_instance(config)
    with pytest.raises(RestoreError, match="another nri-restore runs on this node"):
        drop_leftovers(config)
    os.close(lock)
    assert (config.paths.plans / PLAN).exists()
    assert not containerd.asked(DELETE)


def test_nothing_goes_under_a_restored_container(config: Config, containerd: FakeContainerd) -> None:
    (config.paths.plans / PLAN / "restored").write_text(str(os.getpid()))
    with pytest.raises(RestoreError, match="restored containers run on this node"):
        drop_leftovers(config)
    assert (config.paths.plans / PLAN).exists()
    assert not containerd.asked(DELETE)


def test_container_that_ended_while_the_daemon_was_away_keeps_nothing(
    config: Config, containerd: FakeContainerd
) -> None:
    (config.paths.plans / PLAN / "restored").write_text("4194305")
    drop_leftovers(config)
    assert not (config.paths.plans / PLAN).exists()
    assert containerd.asked(DELETE)


def test_runtime_that_does_not_answer_is_an_error(config: Config, containerd: FakeContainerd) -> None:
    containerd.fail(LIST, grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(RestoreError):
        drop_leftovers(config)
