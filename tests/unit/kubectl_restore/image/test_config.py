from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kubectl_restore.image.config import image_config, manifest_annotations
from shared import contract
from shared.archive import open_checkpoint
from shared.metadata import Checkpoint, read_checkpoint
from shared.oci import Platform
from tests.support.base_image import BaseImage, config_of
from tests.support.checkpoints import containerd, crio, podman, runtime_spec
from tests.unit.kubectl_restore.conftest import WriteCheckpoint

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
TRIGGERS = {contract.TRIGGER_CONTAINERD, contract.TRIGGER_CRIO, contract.TRIGGER_PODMAN}


def _checkpoint(path: Path) -> Checkpoint:
    with open_checkpoint(path) as files:
        return read_checkpoint(files)


def _config(checkpoint: Checkpoint, base: dict[str, Any] | None) -> dict[str, Any]:
    document = image_config(
        checkpoint,
        "archive",
        base=base,
        platform=Platform("linux", "arm64", "v8"),
        created=WHEN,
        diff_ids=["sha256:1"],
        created_by=["a line"],
    )
    assert document["created"] == "2026-01-02T03:04:05.000678Z"
    assert (document["os"], document["architecture"], document["variant"]) == ("linux", "arm64", "v8")
    assert document["rootfs"] == {"type": "layers", "diff_ids": ["sha256:1"]}
    assert document["history"] == [{"created": document["created"], "created_by": "a line"}]
    section: dict[str, Any] = document["config"]
    return section


def test_the_bases_config_stays_but_command_and_user_are_the_dumps(write_checkpoint: WriteCheckpoint) -> None:
    spec = runtime_spec()
    spec["process"]["user"] = {"uid": 1000, "gid": 2000}
    config = _config(_checkpoint(write_checkpoint(containerd(spec=spec))), config_of(BaseImage().config))
    assert config["Env"] == ["PATH=/bin", "BASE=1"]
    assert config["WorkingDir"] == "/srv"
    assert config["Volumes"] == {"/data": {}}
    assert config["StopSignal"] == "SIGUSR1"
    assert config["Labels"] == {"team": "shop", contract.IMAGE_FORMAT: "archive"}
    assert config["Cmd"] == ["/bin/app", "--serve"]
    assert config["User"] == "1000:2000"
    assert "Entrypoint" not in config, "it would come before Cmd"


def test_labels_that_would_make_a_runtime_restore_by_itself_are_not_inherited(
    write_checkpoint: WriteCheckpoint,
) -> None:
    base = BaseImage(labels=dict.fromkeys(TRIGGERS, "old") | {"team": "shop"})
    assert set(_config(_checkpoint(write_checkpoint()), config_of(base.config))["Labels"]) == {
        "team",
        contract.IMAGE_FORMAT,
    }


def test_without_a_base_the_processs_own_environment_serves(write_checkpoint: WriteCheckpoint) -> None:
    spec = runtime_spec()
    spec["process"]["cwd"] = "/work"
    spec["process"]["env"] = [
        "PATH=/bin",
        "HOSTNAME=app-pod",
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
        "REDIS_SERVICE_PORT=6379",
        "REDIS_PORT_6379_TCP_ADDR=10.96.0.7",
        "MODE=fast",
        "EMPTY=",
    ]
    config = _config(_checkpoint(write_checkpoint(containerd(spec=spec))), None)
    assert config["Env"] == ["PATH=/bin", "MODE=fast", "EMPTY="]
    assert config["WorkingDir"] == "/work"
    assert config["Labels"] == {contract.IMAGE_FORMAT: "archive"}


def test_a_base_config_with_nothing_in_it_is_enough(write_checkpoint: WriteCheckpoint) -> None:
    for section in ({}, {"config": None}, {"config": {"Labels": None}}):
        assert _config(_checkpoint(write_checkpoint()), section)["Labels"] == {contract.IMAGE_FORMAT: "archive"}


def test_the_archive_format_wakes_every_engine(write_checkpoint: WriteCheckpoint) -> None:
    annotations = manifest_annotations(_checkpoint(write_checkpoint()), "archive", created=WHEN, base_digest=None)
    assert annotations[contract.TRIGGER_CONTAINERD] == annotations[contract.TRIGGER_CRIO] == "app"
    assert annotations[contract.TRIGGER_PODMAN] == "runc"
    assert annotations[contract.IMAGE_FORMAT] == "archive"
    assert annotations[contract.CHECKPOINT_ENGINE] == "containerd"
    assert annotations[contract.CHECKPOINT_POD_NAME] == "app-pod"
    assert annotations[contract.CHECKPOINT_POD_NAMESPACE] == "shop"
    assert annotations[contract.CHECKPOINT_BASE_NAME] == "registry.example/app:1"
    assert annotations[contract.CHECKPOINT_BASE_USER_REQUESTED] == "registry.example/app:1"
    assert annotations[contract.CHECKPOINT_BASE_ID].startswith("registry.example/app@sha256:")
    assert annotations[contract.CHECKPOINT_RUNTIME] == "io.containerd.runc.v2"
    assert contract.BASE_DIGEST not in annotations


def test_the_layered_format_wakes_none(write_checkpoint: WriteCheckpoint) -> None:
    annotations = manifest_annotations(_checkpoint(write_checkpoint()), "layered", created=WHEN, base_digest="sha256:b")
    assert not TRIGGERS & set(annotations)
    assert annotations[contract.IMAGE_FORMAT] == "layered"
    assert annotations[contract.BASE_DIGEST] == "sha256:b"
    assert annotations[contract.CHECKPOINT_POD_NAME] == "app-pod"


@pytest.mark.parametrize(("files", "engine", "runtime"), [(crio(), "CRI-O", "runc"), (podman(), "Podman", "crun")])
def test_other_engines_are_named(
    files: dict[str, bytes], engine: str, runtime: str, write_checkpoint: WriteCheckpoint
) -> None:
    annotations = manifest_annotations(_checkpoint(write_checkpoint(files)), "archive", created=WHEN, base_digest=None)
    assert annotations[contract.CHECKPOINT_ENGINE] == engine
    assert annotations[contract.TRIGGER_PODMAN] == runtime
    assert "" not in annotations.values()
