"""``kubectl restore status``: how a pod's restore went, as far as the cluster knows."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import typer

from kubectl_restore.completion import pods
from kubectl_restore.ending import Debug
from kubectl_restore.kube.flags import ClusterFlags, cluster_verb


class Output(enum.StrEnum):
    json = "json"
    yaml = "yaml"


@cluster_verb
def status(
    pod: Annotated[str, typer.Argument(metavar="POD", help="NAME or pod/NAME.", autocompletion=pods)],
    output: Annotated[
        Output | None, typer.Option("-o", "--output", help="Print a document instead of the table.")
    ] = None,
    debug: Debug = False,
    *,
    cluster: ClusterFlags,
) -> None:
    """Show how the restore of a pod went: its state, and the reason code of what failed.

    From the pod and its events; a node's own report of each attempt is in /var/log/nri-restore there.
    """
    from kubectl_restore.kube.connection import connect, path_of
    from kubectl_restore.kube.errors import Forbidden
    from kubectl_restore.kube.pods import find_pod, pod_name
    from kubectl_restore.status.gather import gather

    connection = connect(cluster)
    found = find_pod(connection, pod_name(pod))
    about = f"involvedObject.uid={found['metadata']['uid']}"
    try:
        events = connection.get(path_of("events", connection.namespace), fieldSelector=about).get("items") or []
    except Forbidden:
        events = []
    document = gather(found, events)
    if output is None:
        _print(document)
        return
    from kubectl_restore.inspect.document import as_json, as_yaml

    print(as_json(document) if output is Output.json else as_yaml(document).rstrip())


def _print(document: dict[str, Any]) -> None:
    from kubectl_restore.printing import safe
    from kubectl_restore.table import table

    rows = [
        {
            "CONTAINER": each["name"],
            "STATE": each["state"] + (f" ({each['stateReason']})" if each["stateReason"] else ""),
            "RESTARTS": str(each["restarts"]),
            "CHECKPOINT": each["checkpoint"] or (each["image"] if document["underHandler"] else "<none>"),
        }
        for each in document["containers"]
    ]
    place = f" on node {document['node']}" if document["node"] else ""
    handler = document["runtimeClass"] or "none"
    print(f"pod {document['namespace']}/{document['pod']}{place}: {document['phase']}, runtimeClass {handler}")
    print(table([{key: safe(str(value)) for key, value in row.items()} for row in rows]), end="")
    failures = {
        (each["failure"]["code"], each["failure"]["sentence"]): each["failure"]["documentation"]
        for each in (*document["containers"], *document["events"])
        if each["failure"]
    }
    for (code, sentence), documentation in failures.items():
        print(safe(f"{code}: {sentence} (see {documentation})"))
