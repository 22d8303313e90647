"""``kubectl restore status``: how a pod's restore went, as far as the cluster knows."""

from __future__ import annotations

import enum
from contextlib import suppress
from typing import Annotated, Any

import typer

from kubectl_restore.completion import pods
from kubectl_restore.ending import Debug
from kubectl_restore.grouped import with_flags
from kubectl_restore.kube.flags import ClusterFlags
from shared.contract import HANDLER


class Output(enum.StrEnum):
    json = "json"
    yaml = "yaml"


@with_flags(cluster=ClusterFlags)
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
    from kubectl_restore.status.text import as_text

    connection = connect(cluster)
    found = find_pod(connection, pod_name(pod))
    about = f"involvedObject.uid={found['metadata']['uid']}"
    events: list[dict[str, Any]] = []
    with suppress(Forbidden):
        events = connection.get(path_of("events", connection.namespace), fieldSelector=about).get("items") or []
    handler = None
    if (of := found["spec"].get("runtimeClassName")) and of != HANDLER:
        with suppress(Forbidden):
            handler = (connection.find(path_of("runtimeclasses", name=of, group="node.k8s.io")) or {}).get("handler")
    document = gather(found, events, handler=handler)
    if output is None:
        print(as_text(document), end="")
        return
    from kubectl_restore.inspect.document import as_json, as_yaml

    print(as_json(document) if output is Output.json else as_yaml(document).rstrip())
