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
        ("OCI runtime create failed: restore: TtyDiffers: set tty: false: unknown", "TtyDiffers", "set tty: false"),
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
    assert container["restore"] == "refused"
    assert container["failure"] == {
        "code": "TtyDiffers",
        "sentence": "set tty",
        "remedy": "set `tty` as it was",
        "documentation": "docs/reasons.md",
    }
    assert [each["failure"]["code"] for each in found["events"]] == ["UserDiffers"]


def test_ordinary_pod_has_nothing_to_tell() -> None:
    found = gather({"metadata": {"name": "a", "namespace": "b"}, "spec": {"containers": [{"name": "c"}]}}, [])
    assert not found["underHandler"] and found["containers"][0]["failure"] is None and found["events"] == []


ASKED = {"nri-restore/checkpoint": "ck:1"}
RUNNING: Object = {"state": {"running": {}}}
REFUSED: Object = {"lastState": {"terminated": {"message": "restore: TtyDiffers: set tty"}}}
BACK_OFF: Object = {"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}}
PREPARING: Object = {"state": {"waiting": {"message": "restore: StillPreparing: after 25 s"}}}


def container(annotations: dict[str, str], status: Object, *events: Object, handler: str = "nri-restore") -> Object:
    pod: Object = {
        "metadata": {"name": "web", "namespace": "shop", "annotations": annotations},
        "spec": {"runtimeClassName": handler, "containers": [{"name": "main", "image": "app:1"}]},
        "status": {"containerStatuses": [{"name": "main", **status}]},
    }
    found: Object = gather(pod, list(events))["containers"][0]
    return found


def event(reason: str, *, message: str = "", container: str = "main") -> Object:
    kind = "Warning" if reason == "Failed" else "Normal"
    place = {"fieldPath": f"spec.containers{{{container}}}"}
    return {"type": kind, "reason": reason, "message": message, "involvedObject": place}


@pytest.mark.parametrize(
    ("annotations", "status", "restore"),
    [
        (ASKED, RUNNING, "resumed"),
        ({"nri-restore/checkpoint.main": "ck:1"}, RUNNING, "resumed"),
        ({"nri-restore/checkpoint.other": "ck:1"}, RUNNING, "running"),
        ({}, RUNNING, "running"),
        (ASKED | {"nri-restore/on-failure": "start"}, RUNNING, "running"),
        (ASKED | {"nri-restore/on-failure.other": "start"}, RUNNING, "resumed"),
        (ASKED | {"nri-restore/on-restart": "start"}, RUNNING | {"restartCount": 1}, "running"),
        (ASKED | {"nri-restore/on-restart": "start"}, RUNNING, "resumed"),
        (ASKED, RUNNING | REFUSED, "resumed"),
        (ASKED, BACK_OFF | REFUSED, "refused"),
        (ASKED, PREPARING, "preparing"),
        (ASKED, {"state": {"terminated": {"exitCode": 3}}}, "ended"),
        (ASKED, {"state": {"waiting": {"reason": "ContainerCreating"}}}, "waiting"),
        (ASKED, {}, "waiting"),
    ],
)
def test_how_far_a_restore_is(annotations: dict[str, str], status: Object, restore: str) -> None:
    assert container(annotations, status)["restore"] == restore


def test_container_that_was_created_and_not_started_is_being_prepared() -> None:
    assert container({}, {}, event("Pulling"), event("Created"))["restore"] == "preparing"
    assert container({}, {}, event("Created", container="other"))["restore"] == "waiting"
    assert container({}, {}, event("Created"), event("Failed", message="Error: no such image"))["restore"] == "waiting"


def test_event_tells_why_where_the_state_does_not() -> None:
    said = event("Failed", message="Error: UserDiffers: set it")
    assert container({}, BACK_OFF, said)["failure"]["code"] == "UserDiffers"
    assert container({}, RUNNING, said)["failure"] is None


def test_runtime_class_of_another_name_is_known_by_its_handler() -> None:
    assert container({}, RUNNING, handler="gold")["restore"] == "none"
    pod: Object = {"metadata": {"name": "a", "namespace": "b"}, "spec": {"runtimeClassName": "gold"}}
    assert gather(pod, [], handler="nri-restore")["underHandler"]
