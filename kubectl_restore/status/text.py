"""A pod's restores as text: a table of its containers, and below it what was refused, why, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_restore.printing import count_of
from kubectl_restore.table import table
from shared.printable import safe

Object = dict[str, Any]


def as_text(document: Object) -> str:
    place = f" on node {document['node']}" if document["node"] else ""
    ready = "Ready" if document["ready"] else "not Ready"
    handler = document["runtimeClass"] or "none"
    lines = [
        f"pod {document['namespace']}/{document['pod']}{place}: {document['phase']}, {ready}, runtimeClass {handler}",
        *table([_row(each, document["underHandler"]) for each in document["containers"]]).splitlines(),
        *_sentences(document),
    ]
    return "".join(f"{safe(line)}\n" for line in lines)


def _row(container: Object, under: bool) -> dict[str, str]:
    state = container["state"] + (f" ({container['stateReason']})" if container["stateReason"] else "")
    checkpoint = container["checkpoint"] or (container["image"] if under else None)
    return {
        "CONTAINER": container["name"],
        "RESTORE": container["restore"],
        "STATE": state,
        "RESTARTS": str(container["restarts"]),
        "CHECKPOINT": str(checkpoint or "<none>"),
    }


def _sentences(document: Object) -> Iterator[str]:
    if document["unschedulable"]:
        yield f"no node takes it: {document['unschedulable']}"
    current = set()
    for each in document["containers"]:
        failure = each["failure"]
        if failure:
            current.add((failure["code"], failure["sentence"]))
            yield f"{each['name']}: {failure['code']}: {failure['sentence']}"
            yield from _remedy(failure)
        elif each["restore"] == "preparing":
            yield f"{each['name']}: the node is pulling or preparing the checkpoint; wait"
        elif each["state"] == "waiting" and each["message"]:
            yield f"{each['name']}: {each['message']}"
        elif each["restore"] == "running" and each["checkpoint"]:
            yield f"{each['name']}: it resumed, or was started afresh as its annotations allow"
        elif each["restore"] == "running":
            yield f"{each['name']}: it resumed if {each['image']} is a checkpoint image; of those it starts none afresh"
    earlier: dict[tuple[str, str], int] = {}
    for event in document["events"]:
        if event["failure"]:
            key = event["failure"]["code"], event["failure"]["sentence"]
            earlier[key] = earlier.get(key, 0) + (event["count"] or 1)
    for (code, sentence), times in earlier.items():
        if (code, sentence) not in current:
            yield f"earlier, {count_of(times, 'time')}: {code}: {sentence}"


def _remedy(failure: Object) -> Iterator[str]:
    if failure["remedy"]:
        yield f"  what to do: {failure['remedy']}"
    yield f"  see {failure['documentation']}"
