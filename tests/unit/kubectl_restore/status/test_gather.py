from __future__ import annotations

import pytest

from kubectl_restore.status.gather import gather, reason_in
from tests.support.kube_objects import Object


@pytest.mark.parametrize(
    ("message", "code", "sentence"),
    [
        (
            "failed to create container: NRI: TtyDiffers: the pod has a tty",
            "TtyDiffers",
            "the pod has a tty",
        ),
        ("Error: StartError: failed: NotPrepared: ask again: soon", "NotPrepared", "ask again: soon"),
        ("rpc error: code = Unknown desc = MountMissing: add /x", "MountMissing", "add /x"),
    ],
)
def test_code_and_sentence(message: str, code: str, sentence: str) -> None:
    assert reason_in(message) == (code, sentence)


@pytest.mark.parametrize(
    "message", ["", "Back-off pulling image", "StartError: nothing known", "Error: x", "a/BadPath: no"]
)
def test_no_code(message: str) -> None:
    assert reason_in(message) is None


def test_pod_whose_restore_was_refused() -> None:
    waiting = {"waiting": {"reason": "CreateContainerError", "message": "x: TtyDiffers: set tty"}}
    pod: Object = {
        "metadata": {"name": "web", "namespace": "shop", "annotations": {"nri-restore/checkpoint": "ck:1", "a": "b"}},
        "spec": {"runtimeClassName": "nri-restore", "containers": [{"name": "main", "image": "app:1"}]},
        "status": {"phase": "Pending", "containerStatuses": [{"name": "main", "state": waiting, "restartCount": 2}]},
    }
    events: list[Object] = [
        {"type": "Warning", "reason": "Failed", "message": "Error: UserDiffers: set it", "lastTimestamp": "2"},
        {"type": "Normal", "reason": "Pulled", "message": "TtyDiffers: no", "lastTimestamp": "1"},
    ]
    found = gather(pod, events)
    assert found["underHandler"] and not found["ready"] and found["annotations"] == {"nri-restore/checkpoint": "ck:1"}
    (container,) = found["containers"]
    assert (container["checkpoint"], container["state"], container["restarts"]) == ("ck:1", "waiting", 2)
    assert container["failure"] == {"code": "TtyDiffers", "sentence": "set tty", "documentation": "docs/reasons.md"}
    assert [each["failure"]["code"] for each in found["events"]] == ["UserDiffers"]


def test_ordinary_pod_has_nothing_to_tell() -> None:
    found = gather({"metadata": {"name": "a", "namespace": "b"}, "spec": {"containers": [{"name": "c"}]}}, [])
    assert not found["underHandler"] and found["containers"][0]["failure"] is None and found["events"] == []
