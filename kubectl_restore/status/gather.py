"""What a pod tells of its restores: annotations, container states, events, and the reason code in what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from shared import contract

Object = dict[str, Any]

DOCUMENTATION: Final = "docs/reasons.md"
_REASON: Final = re.compile(r"(?<![\w/.=])(?P<code>(?:[A-Z][a-z0-9]+){2,}): (?P<sentence>[^\n]{3,})")
_OF_THE_KUBELET: Final = frozenset(
    {"ErrImagePull", "StartError", "CreateContainerError", "RunContainerError", "ContainerCannotRun", "NotFound"}
)
"""Words of that form which say where it failed, and not why."""


def reason_in(message: str) -> tuple[str, str] | None:
    """The last reason code in a text and its sentence: ``rpc error: … CreateContainer: TtyDiffers: the pod …``."""
    rest, found = message, None
    while match := _REASON.search(rest):
        if match["code"] not in _OF_THE_KUBELET:
            found = match["code"], match["sentence"].strip()
        rest = match["sentence"]
    return found


def gather(pod: Object, events: list[Object]) -> Object:
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    annotations = {
        key: value for key, value in (metadata.get("annotations") or {}).items() if key.startswith("nri-restore/")
    }
    statuses = {each["name"]: each for each in status.get("containerStatuses") or []}
    ready: Object = next((each for each in status.get("conditions") or [] if each.get("type") == "Ready"), {})
    return {
        "apiVersion": "nri-restore/v1",
        "kind": "RestoreStatus",
        "namespace": metadata["namespace"],
        "pod": metadata["name"],
        "node": spec.get("nodeName"),
        "runtimeClass": spec.get("runtimeClassName"),
        "underHandler": spec.get("runtimeClassName") == contract.HANDLER,
        "phase": status.get("phase"),
        "ready": ready.get("status") == "True",
        "annotations": annotations,
        "containers": [
            _container(each, statuses.get(each["name"], {}), annotations) for each in spec.get("containers") or []
        ],
        "events": list(_events(events)),
    }


def _container(container: Object, status: Object, annotations: Object) -> Object:
    key = contract.POD_CHECKPOINT
    state, last = status.get("state") or {}, status.get("lastState") or {}
    kind = next(iter(state), "waiting")
    texts = [str((each.get(word) or {}).get("message") or "") for each in (state, last) for word in each]
    found = next(filter(None, map(reason_in, texts)), None)
    return {
        "name": container["name"],
        "image": container.get("image"),
        "checkpoint": annotations.get(f"{key}.{container['name']}", annotations.get(key)),
        "state": kind,
        "stateReason": (state.get(kind) or {}).get("reason"),
        "restarts": status.get("restartCount", 0),
        "failure": _failure(found),
    }


def _failure(found: tuple[str, str] | None) -> Object | None:
    return None if found is None else {"code": found[0], "sentence": found[1], "documentation": DOCUMENTATION}


def _events(events: list[Object]) -> Iterator[Object]:
    """Warnings, the oldest first, and what they give for a reason."""
    for each in sorted(events, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or "")):
        if each.get("type") == "Warning":
            yield {
                "time": each.get("lastTimestamp") or each.get("eventTime"),
                "count": each.get("count", 1),
                "reason": each.get("reason"),
                "message": each.get("message"),
                "failure": _failure(reason_in(str(each.get("message", "")))),
            }
