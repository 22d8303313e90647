"""The pod that resumes: created, watched until it is Ready, and removed again when it does not come to that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from kubectl_restore.kube.connection import path_of
from kubectl_restore.kube.errors import ApiRefused, Forbidden
from kubectl_restore.kube.undisturbed import undisturbed
from kubectl_restore.status.gather import reason_in
from kubectl_restore.status.reasons import PASSING, reason
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
_SAYING_NOTHING: Final = ("ContainerCreating", "PodInitializing", "it has no status")


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


def check_runtime_class(connection: Connection, name: str) -> None:
    """Raises RestoreError("RuntimeClassMissing"); who may not read them finds out when the pod is created."""
    with suppress(Forbidden):
        if connection.find(path_of("runtimeclasses", name=name, group="node.k8s.io")) is None:
            raise RestoreError(
                "RuntimeClassMissing",
                f"the cluster has no RuntimeClass {name}; an administrator creates it (docs/install.md), "
                "or --runtime-class names another one of that handler",
            )


@contextmanager
def created(connection: Connection, pod: Object, note: Callable[[str], None]) -> Iterator[None]:
    """Deletes the pod when the block fails, however it was interrupted, and tells ``note``."""
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
            with undisturbed():
                note(_removed(connection, f"{path}/{name}", name))
        raise


def _removed(connection: Connection, path: str, name: str) -> str:
    try:
        connection.call("DELETE", path, {"gracePeriodSeconds": 0}, timeout_s=15)
    except RestoreError as error:
        return f"pod {name} could not be deleted again: {error}"
    return f"pod {name} is deleted again"


def await_ready(
    connection: Connection, name: str, limit_s: float, now: Callable[[str], None] = lambda sentence: None
) -> str:
    """The node that it is Ready on; ``now`` is told what it waits for.

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
            raise RestoreError("RestoreFailed", f"pod {name} is {status['phase']}: {_plain(_ended(status))}")
        for each in status.get("containerStatuses") or []:
            waiting = (each.get("state") or {}).get("waiting") or {}
            word, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
            said = _ended(status) if word == "CrashLoopBackOff" else message
            found = reason_in(said)
            if word in _FINAL and not (found and found[0] in PASSING):
                raise RestoreError("RestoreFailed", f"container {each['name']} of pod {name}: {word}: {_plain(said)}")
            seen = f"{word} {message}".strip() or seen
        unscheduled = conditions.get("PodScheduled", {})
        if unscheduled.get("status") == "False":
            seen = str(unscheduled.get("message", "it cannot be scheduled"))
        now(_plain(seen))
        time.sleep(_POLL_S)
    said = _warned(connection, name) if seen in _SAYING_NOTHING else ""
    raise Unavailable("PodNotReady", f"pod {name} was not Ready after {limit_s:.0f} s: {said or seen}")


def _warned(connection: Connection, name: str) -> str:
    """The newest warning about the pod, such as a volume that cannot be mounted; empty where events may not be read."""
    about = f"involvedObject.name={name},type=Warning"
    with suppress(Forbidden):
        found = connection.get(path_of("events", connection.namespace), fieldSelector=about).get("items") or []
        return str(found[-1].get("message") or "") if found else ""
    return ""


def _plain(message: str) -> str:
    """Only our own reason and sentence, where a message has them, and what to do."""
    found = reason_in(message)
    if found is None:
        return message
    known = reason(found[0])
    remedy = f" ({known.remedy})" if known and known.remedy else ""
    return f"{found[0]}: {found[1]}{remedy}"


def _ended(status: Object) -> str:
    """What a container of the pod left when it ended."""
    for each in status.get("containerStatuses") or []:
        for kind in ("state", "lastState"):
            terminated = (each.get(kind) or {}).get("terminated") or {}
            if terminated:
                return str(terminated.get("message") or f"exit code {terminated.get('exitCode')}")
    return str(status.get("message", "no reason is given"))
