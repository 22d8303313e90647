"""``kubectl restore checkpoint``: has the kubelet write a running container to an archive on its node."""

from __future__ import annotations

import enum
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubectl_restore.completion import containers, pods
from kubectl_restore.ending import Debug
from kubectl_restore.grouped import with_flags
from kubectl_restore.kube.flags import ClusterFlags
from kubectl_restore.source.options import KubeletFlags, TransferFlags, kubelet_access

if TYPE_CHECKING:
    from kubectl_restore.kube.kubelet import Taken


class Output(enum.StrEnum):
    json = "json"
    yaml = "yaml"
    name = "name"
    wide = "wide"


@with_flags(kubelet=KubeletFlags, transfer=TransferFlags, cluster=ClusterFlags)
def checkpoint(
    pod: Annotated[str, typer.Argument(metavar="POD", help="NAME or pod/NAME.", autocompletion=pods)],
    kubelet: KubeletFlags,
    transfer: TransferFlags,
    cluster: ClusterFlags,
    container: Annotated[
        str,
        typer.Option(
            "-c",
            "--container",
            metavar="NAME",
            help="The container. Default: the only one, else the pod's kubectl.kubernetes.io/default-container.",
            autocompletion=containers,
        ),
    ] = "",
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Copy the archive from the node to FILE as well.")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
    output: Annotated[
        Output | None,
        typer.Option("-o", "--output", help="json, yaml, wide, or name: node/NAME:PATH, which other verbs take."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Checkpoint a running container; it goes on running.

    The archive stays on the node, where only root can read it: it holds the container's memory.
    """
    from kubectl_restore.image.progress import progress
    from kubectl_restore.kube.connection import connect
    from kubectl_restore.kube.pods import pod_name
    from kubectl_restore.source.names import NodeFile
    from kubectl_restore.source.opening import Fetching, fetch
    from kubectl_restore.source.opening import checkpoint as take

    access, timeout_s = kubelet_access(kubelet)
    name = pod_name(pod)
    if save is not None and save.exists():
        raise typer.BadParameter(f"{save} exists already", param_hint="--save")
    connection = connect(cluster)
    with progress(quiet=quiet) as bars:
        fetching = Fetching(
            lambda: connection,
            bars,
            image=transfer.transfer_image,
            namespace=transfer.transfer_namespace,
            timeout_s=timeout_s,
            access=access,
            warn=_warn,
        )
        taken = take(connection, name, container, fetching)
        size = None if save is None else fetch(connection, NodeFile(taken.target.node, taken.path), save, fetching)
    _report(taken, size, save, output)


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr)


def _report(taken: Taken, size: int | None, saved: Path | None, output: Output | None) -> None:
    target = taken.target
    source = f"node/{target.node}:{taken.path}"
    if output is Output.name:
        print(source)
        return
    if output in (Output.json, Output.yaml):
        document: dict[str, Any] = {
            "source": source,
            "node": target.node,
            "path": taken.path,
            "namespace": target.namespace,
            "pod": target.pod,
            "podUID": target.uid,
            "container": target.container,
            "seconds": round(taken.seconds, 3),
            "via": taken.via.value,
        }
        if saved is not None:
            document |= {"sizeBytes": size, "file": str(saved)}
        print(_written(document, output), end="")
        return
    from kubectl_restore.printing import size_of
    from kubectl_restore.table import table

    known = "<unknown>" if size is None else size_of(size)
    row = {"NODE": target.node, "PATH": taken.path, "SIZE": known, "TIME": f"{taken.seconds:.1f}s"}
    if output is Output.wide:
        row = {"NAMESPACE": target.namespace, "POD": target.pod, "CONTAINER": target.container, **row}
        row |= {"VIA": taken.via.value, "FILE": str(saved or "<none>")}
    print(table([row]), end="")


def _written(document: dict[str, Any], output: Output | None) -> str:
    if output is Output.json:
        return json.dumps(document, indent=4) + "\n"
    import yaml

    text: str = yaml.safe_dump(document, sort_keys=False)
    return text
