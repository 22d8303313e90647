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
from shared.printable import safe

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
        list[str] | None,
        typer.Option(
            "-c",
            "--container",
            metavar="NAME",
            help="The container; may be repeated. Default: the only one, else the pod's "
            "kubectl.kubernetes.io/default-container.",
            autocompletion=containers,
        ),
    ] = None,
    all_containers: Annotated[
        bool, typer.Option("--all-containers", help="Each container of the pod, one after the other.")
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save", metavar="FILE", help="Copy the archive from the node to FILE as well; of one container."
        ),
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
    from kubectl_restore.kube.pods import containers, find_pod, pod_name, target
    from kubectl_restore.source.names import NodeFile
    from kubectl_restore.source.opening import Fetching, fetch
    from kubectl_restore.source.opening import checkpoint as take

    access, timeout_s = kubelet_access(kubelet)
    name = pod_name(pod)
    if save is not None and save.exists():
        raise typer.BadParameter(f"{save} exists already", param_hint="--save")
    if all_containers and container:
        raise typer.BadParameter("give one of --container and --all-containers", param_hint="--all-containers")
    connection = connect(cluster)
    names = containers(find_pod(connection, name)) if all_containers else container or [""]
    if save is not None and len(names) > 1:
        raise typer.BadParameter("one file holds one container; choose it with -c", param_hint="--save")
    if len(names) > 1:
        found = find_pod(connection, name)
        for each in names:
            target(found, each)
    taken: list[Taken] = []
    size = None
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
        try:
            for each in names:
                taken.append(take(connection, name, each, fetching))
                if save is not None:
                    size = fetch(connection, NodeFile(taken[-1].target.node, taken[-1].path), save, fetching)
        finally:
            # What was taken before something failed stays on its node.
            if taken:
                _report(taken, size, save if size is not None else None, output)


def _warn(sentence: str) -> None:
    print(safe(f"warning: {sentence}"), file=sys.stderr)


def _report(taken: list[Taken], size: int | None, saved: Path | None, output: Output | None) -> None:
    """``size`` and ``saved``: of the only one."""
    if output is Output.name:
        for each in taken:
            print(_source(each))
        return
    if output in (Output.json, Output.yaml):
        file = {} if saved is None else {"sizeBytes": size, "file": str(saved)}
        documents = [_document(each) | file for each in taken]
        several = {"apiVersion": "v1", "kind": "List", "items": documents}
        print(_written(documents[0] if len(documents) == 1 else several, output), end="")
        return
    from kubectl_restore.printing import size_of
    from kubectl_restore.table import table

    known = "<unknown>" if size is None else size_of(size)
    rows = []
    for each in taken:
        of = each.target
        row = {"NODE": of.node, "PATH": each.path, "SIZE": known, "TIME": f"{each.seconds:.1f}s"}
        if output is Output.wide:
            row = {"NAMESPACE": of.namespace, "POD": of.pod, "CONTAINER": of.container, **row}
            row |= {"VIA": each.via.value, "FILE": str(saved or "<none>")}
        elif len(taken) > 1:
            row = {"CONTAINER": of.container, **row}
        rows.append(row)
    print(table(rows), end="")


def _source(taken: Taken) -> str:
    return f"node/{taken.target.node}:{taken.path}"


def _document(taken: Taken) -> dict[str, Any]:
    target = taken.target
    return {
        "source": _source(taken),
        "node": target.node,
        "path": taken.path,
        "namespace": target.namespace,
        "pod": target.pod,
        "podUID": target.uid,
        "container": target.container,
        "seconds": round(taken.seconds, 3),
        "via": taken.via.value,
    }


def _written(document: dict[str, Any], output: Output | None) -> str:
    if output is Output.json:
        return json.dumps(document, indent=4) + "\n"
    import yaml

    text: str = yaml.safe_dump(document, sort_keys=False)
    return text
