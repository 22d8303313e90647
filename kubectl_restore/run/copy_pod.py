"""The pod that resumes: created, watched until it is Ready, and removed again when it does not come to that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from kubectl_restore.kube.connection import path_of
from kubectl_restore.kube.errors import ApiRefused
from kubectl_restore.kube.undisturbed import undisturbed
from kubectl_restore.status.gather import reason_in
from kubectl_restore.status.reasons import PASSING
from shared.errors import RestoreError, Unavailable

if TYPE_CHECKING:
    from kubectl_restore.kube.connection import Connection

Object = dict[str, Any]
_HOSTNAME: Final = "kubernetes.io/hostname"
_POLL_S: Final = 0.3
_FINAL: Final = (
    "CreateContainerError",
    "CreateContainerConfigError",
    "RunContainerError",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CrashLoopBackOff",
)
"""Why a container waits, where waiting longer changes nothing (kubernetes pkg/kubelet/container, images)."""


def bind(connection: Connection, pod: Object, node: str) -> None:
    """Makes the scheduler choose this node; raises RestoreError("NodeNotFound")."""
    found = connection.find(path_of("nodes", name=node))
    if found is None:
        raise RestoreError("NodeNotFound", f"there is no node \"{node}\"; 'kubectl get nodes' lists them")
    name = (found["metadata"].get("labels") or {}).get(_HOSTNAME, node)
    pod["spec"].setdefault("nodeSelector", {})[_HOSTNAME] = name


def free(connection: Connection, name: str) -> None:
    """Raises RestoreError("PodExists")."""
    if connection.find(path_of("pods", connection.namespace, name)) is not None:
        raise RestoreError(
            "PodExists", f"there is a pod {connection.namespace}/{name} already; delete it or choose another --name"
        )


@contextmanager
def created(connection: Connection, pod: Object) -> Iterator[None]:
    """Deletes the pod when the block fails, however it was interrupted."""
    name = pod["metadata"]["name"]
    path = path_of("pods", connection.namespace)
    ours = True
    try:
        try:
            connection.call("POST", path, pod)
        except ApiRefused:
            ours = False
            raise
        yield
    except BaseException:
        if ours:
            with undisturbed(), suppress(RestoreError):
                connection.call("DELETE", f"{path}/{name}", {"gracePeriodSeconds": 0}, timeout_s=15)
        raise


def await_ready(connection: Connection, name: str, limit_s: float) -> str:
    """The node that it is Ready on.

    Raises RestoreError("RestoreFailed") with what the kubelet says, Unavailable("PodNotReady") after ``limit_s``.
    """
    deadline = time.monotonic() + limit_s
    path = path_of("pods", connection.namespace, name)
    seen = "it has no status"
    while time.monotonic() < deadline:
        pod = connection.find(path)
        if pod is None:
            raise RestoreError("RestoreFailed", f"pod {name} was deleted by someone else")
        status = pod.get("status") or {}
        conditions = {each["type"]: each for each in status.get("conditions") or []}
        if conditions.get("Ready", {}).get("status") == "True":
            return str(pod["spec"].get("nodeName", ""))
        if status.get("phase") in ("Failed", "Succeeded"):
            raise RestoreError("RestoreFailed", f"pod {name} is {status['phase']}: {_ended(status)}")
        for each in status.get("containerStatuses") or []:
            waiting = (each.get("state") or {}).get("waiting") or {}
            reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
            said = _ended(status) if reason == "CrashLoopBackOff" else message
            found = reason_in(said)
            if reason in _FINAL and not (found and found[0] in PASSING):
                raise RestoreError("RestoreFailed", f"container {each['name']} of pod {name}: {reason}: {said}")
            seen = f"{reason} {message}".strip() or seen
        unscheduled = conditions.get("PodScheduled", {})
        if unscheduled.get("status") == "False":
            seen = str(unscheduled.get("message", "it cannot be scheduled"))
        time.sleep(_POLL_S)
    raise Unavailable("PodNotReady", f"pod {name} was not Ready after {limit_s:.0f} s: {seen}")


def _ended(status: Object) -> str:
    """What a container of the pod left when it ended."""
    for each in status.get("containerStatuses") or []:
        for kind in ("state", "lastState"):
            terminated = (each.get(kind) or {}).get("terminated") or {}
            if terminated:
                return str(terminated.get("message") or f"exit code {terminated.get('exitCode')}")
    return str(status.get("message", "no reason is given"))
