from __future__ import annotations

import threading
from typing import Any

import pytest

from kubectl_restore.kube.connection import Connection
from kubectl_restore.run.copy_pod import await_ready
from shared.errors import RestoreError, Unavailable
from tests.support.kube_api import KubeApi


def waiting(reason: str, message: str) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "main", "state": {"waiting": {"reason": reason, "message": message}}}]}


def test_preparation_that_takes_long_is_waited_for(api: KubeApi, connection: Connection) -> None:
    api.add_pod("web", "main", phase="Pending")
    api.set_pod_status("default", "web", waiting("RunContainerError", "restore: StillPreparing: after 25 s: unknown"))
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}
    threading.Timer(0.5, api.set_pod_status, ("default", "web", ready)).start()
    assert await_ready(connection, "web", 20) == "node-1"


@pytest.mark.parametrize("reason", ["CreateContainerError", "RunContainerError"])
def test_refusal_ends_the_wait(api: KubeApi, connection: Connection, reason: str) -> None:
    api.add_pod("web", "main", phase="Pending")
    api.set_pod_status("default", "web", waiting(reason, "restore: TtyDiffers: set tty"))
    with pytest.raises(
        RestoreError, match=f"container main of pod web: {reason}: TtyDiffers: set tty .set `tty` as it was.$"
    ):
        await_ready(connection, "web", 20)


def test_pull_is_tried_again_until_the_time_is_over(api: KubeApi, connection: Connection) -> None:
    api.add_pod("web", "main", phase="Pending")
    api.set_pod_status("default", "web", waiting("ErrImagePull", "connection refused"))
    with pytest.raises(Unavailable, match="not Ready after 1 s: ErrImagePull connection refused"):
        await_ready(connection, "web", 1)


def test_volume_that_cannot_be_mounted_is_named(api: KubeApi, connection: Connection) -> None:
    pod = api.add_pod("web", "main", phase="Pending")
    api.set_pod_status("default", "web", waiting("ContainerCreating", ""))
    api.add_event(pod, "FailedMount", 'MountVolume.SetUp failed for volume "data": configmap "data" not found')
    api.add_event(pod, "Scheduled", "assigned", kind="Normal")
    with pytest.raises(Unavailable, match=r'not Ready after 1 s: MountVolume.* configmap "data" not found'):
        await_ready(connection, "web", 1)
    api.forbid("list", "events")
    with pytest.raises(Unavailable, match=r"not Ready after 1 s: ContainerCreating$"):
        await_ready(connection, "web", 1)
