"""What a pod tells of its restores: annotations, container states, events, and the reason code in what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, Literal

from kubectl_restore.status.reasons import DOCUMENTATION, PASSING, reason
from shared import contract

Object = dict[str, Any]

Restore = Literal["none", "waiting", "preparing", "refused", "resumed", "running", "ended"]
"""How far a container's restore is.

``none``: nothing asks for one. ``waiting``: not begun, for want of a node or an image. ``preparing``: the node works on
it. ``refused``: with a reason code. ``resumed``: it runs, and cannot have been started otherwise. ``running``: it runs
under the handler; whether it was restored is not in the cluster (its image may be an ordinary one, or its annotations
allow a fresh start). ``ended``: the process is over.
"""

_REASON: Final = re.compile(r"(?<![\w/.=])(?P<code>(?:[A-Z][a-z0-9]+){2,}): (?P<sentence>[^\n]{3,})")
_OF_THE_KUBELET: Final = frozenset(
    {"ErrImagePull", "StartError", "CreateContainerError", "RunContainerError", "ContainerCannotRun", "NotFound"}
)
"""Words of that form which say where it failed, and not why."""
_OF_THE_RUNTIME: Final = ": unknown"
"""gRPC's code for what a shim says, which containerd puts behind it (google.golang.org/grpc/status, Unknown)."""


def reason_in(message: str) -> tuple[str, str] | None:
    """The last reason code in a text and its sentence: ``rpc error: … CreateContainer: TtyDiffers: the pod …``."""
    rest, found = message, None
    while match := _REASON.search(rest):
        if match["code"] not in _OF_THE_KUBELET:
            found = match["code"], match["sentence"].strip().removesuffix(_OF_THE_RUNTIME)
        rest = match["sentence"]
    return found


def gather(pod: Object, events: list[Object], *, handler: str | None = None) -> Object:
    """``handler``: of the pod's RuntimeClass, where its name alone does not tell."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    annotations = {
        key: value for key, value in (metadata.get("annotations") or {}).items() if key.startswith("nri-restore/")
    }
    conditions: dict[str, Object] = {each["type"]: each for each in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled", {})
    under = contract.HANDLER in (handler, spec.get("runtimeClassName"))
    kinds = (("containers", "containerStatuses"), ("initContainers", "initContainerStatuses"))
    known = sorted(events, key=_time)
    return {
        "apiVersion": "nri-restore/v1",
        "kind": "RestoreStatus",
        "namespace": metadata["namespace"],
        "pod": metadata["name"],
        "node": spec.get("nodeName"),
        "runtimeClass": spec.get("runtimeClassName"),
        "underHandler": under,
        "phase": status.get("phase"),
        "ready": conditions.get("Ready", {}).get("status") == "True",
        "unschedulable": scheduled.get("message") if scheduled.get("status") == "False" else None,
        "annotations": annotations,
        "containers": [
            _container(each, _status_of(each["name"], status.get(statuses)), annotations, under, known)
            for kind, statuses in kinds
            for each in spec.get(kind) or []
        ],
        "events": list(_warnings(known)),
    }


def _status_of(name: str, statuses: list[Object] | None) -> Object:
    return next((each for each in statuses or [] if each["name"] == name), {})


def _container(container: Object, status: Object, annotations: Object, under: bool, events: list[Object]) -> Object:
    name = container["name"]

    def asked(key: str) -> Any:
        return annotations.get(f"{key}.{name}", annotations.get(key))

    state, last = status.get("state") or {}, status.get("lastState") or {}
    kind = next(iter(state), "waiting")
    checkpoint = asked(contract.POD_CHECKPOINT)
    own = [each for each in events if _concerns(each, name)]
    # A process that runs, or ran, was not refused; what its state before says is over.
    messages = [] if kind == "running" else [_message(state), _message(last), *(_said(each) for each in own[::-1])]
    failure = _failure(next(filter(None, map(reason_in, messages)), None))
    found = {
        "name": name,
        "image": container.get("image"),
        "checkpoint": checkpoint,
        "state": kind,
        "stateReason": (state.get(kind) or {}).get("reason"),
        "message": (state.get(kind) or {}).get("message"),
        "ready": status.get("ready", False),
        "restarts": status.get("restartCount", 0),
        "failure": failure,
    }
    certain = (
        checkpoint
        and asked(contract.POD_ON_FAILURE) != "start"
        and not (found["restarts"] and asked(contract.POD_ON_RESTART) == "start")
    )
    return {**found, "restore": _restore(found, own, asked=bool(checkpoint) or under, certain=bool(certain))}


def _restore(container: Object, events: list[Object], *, asked: bool, certain: bool) -> Restore:
    failure = container["failure"]
    if failure:
        return "preparing" if failure["code"] in PASSING else "refused"
    if not asked:
        return "none"
    if container["state"] == "running":
        return "resumed" if certain else "running"
    if container["state"] == "terminated":
        return "ended"
    # The kubelet says "Created" before it asks for the start, which waits while the node prepares.
    newest = next((each.get("reason") for each in events[::-1] if each.get("reason") in ("Created", "Failed")), "")
    return "preparing" if newest == "Created" else "waiting"


def _concerns(event: Object, container: str) -> bool:
    """``spec.containers{main}``; an event about the pod as a whole concerns each of its containers."""
    path = str((event.get("involvedObject") or {}).get("fieldPath") or "")
    return not path.endswith("}") or path.endswith(f"{{{container}}}")


def _message(state: Object) -> str:
    return next((str(each.get("message") or "") for each in state.values() if each), "")


def _said(event: Object) -> str:
    return str(event.get("message") or "") if event.get("type") == "Warning" else ""


def _failure(found: tuple[str, str] | None) -> Object | None:
    if found is None:
        return None
    code, sentence = found
    known = reason(code)
    return {
        "code": code,
        "sentence": sentence,
        "remedy": known.remedy if known else None,
        "documentation": DOCUMENTATION,
    }


def _time(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def _warnings(events: list[Object]) -> Iterator[Object]:
    """The oldest first, and what they give for a reason."""
    for each in events:
        if each.get("type") == "Warning":
            yield {
                "time": _time(each) or None,
                "count": each.get("count", 1),
                "reason": each.get("reason"),
                "message": each.get("message"),
                "failure": _failure(reason_in(str(each.get("message", "")))),
            }
