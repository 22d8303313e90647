"""``kubectl-restore check``: would this checkpoint restore, on a node, in this pod?"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubectl_restore.ending import Debug
from kubectl_restore.grouped import with_flags
from kubectl_restore.image.options import RegistryFlags, registries
from kubectl_restore.kube.flags import ClusterFlags
from kubectl_restore.source.options import Source

if TYPE_CHECKING:
    from kubectl_restore.check.findings import Report
    from kubectl_restore.check.pod import PodContainer
    from shared.archive import CheckpointFiles
    from shared.node_facts import NodeFacts


class Output(enum.StrEnum):
    table = "table"
    json = "json"
    yaml = "yaml"


@with_flags(registry=RegistryFlags, cluster=ClusterFlags)
def check(
    source: Source,
    node: Annotated[
        str | None,
        typer.Option("--node", metavar="NAME", help="The node to restore on. Default: no machine is judged."),
    ] = None,
    here: Annotated[bool, typer.Option("--here", help="Judge this machine, which is a node.")] = False,
    filename: Annotated[
        str | None,
        typer.Option("-f", "--filename", metavar="FILE", help="Manifest of the pod to restore in; - is the input."),
    ] = None,
    pod: Annotated[
        str | None, typer.Option("--pod", metavar="NAME", help="The pod to compare with, as it is in the cluster.")
    ] = None,
    container: Annotated[
        str, typer.Option("-c", "--container", metavar="NAME", help="Container of that pod. Default: of the same name.")
    ] = "",
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="IMAGE",
            help="The image that the container was started from: REF, oci:DIR[:NAME] or oci-archive:FILE[:NAME]; none "
            "leaves the comparison of files out. Default: as recorded in the checkpoint.",
        ),
    ] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="How to print the findings.")] = Output.table,
    debug: Debug = False,
    *,
    registry: RegistryFlags,
    cluster: ClusterFlags,
) -> None:
    """Say whether a checkpoint would restore, and if not, why.

    Exit status: 0 it would, 1 it would fail, 2 could not tell. docs/check.md explains every code.
    """
    if node and here:
        raise typer.BadParameter("give one of --node and --here", param_hint="--here")
    if filename and pod:
        raise typer.BadParameter("give one of --filename and --pod", param_hint="--pod")
    from kubectl_restore.check.examine import Question, examine
    from kubectl_restore.image.progress import progress
    from kubectl_restore.manifest.document import read_document
    from kubectl_restore.reading import open_source

    access = registries(registry)
    machine = _machine(node, cluster, here=here)
    manifest = read_document(filename) if filename else _live_pod(pod, cluster) if pod else None
    with progress(quiet=False) as bars, open_source(source, access, cluster, bars) as opened:
        asked = None if manifest is None else _container(manifest, container, opened.files)
        report = examine(opened, Question(machine, base, asked), access)
    _print(report, output)
    raise typer.Exit(report.exit_code)


def _machine(node: str | None, cluster: ClusterFlags, *, here: bool) -> NodeFacts | None:
    from kubectl_restore.check.machine import node_machine
    from shared.node_facts import gather

    if node is None:
        return gather() if here else None
    from kubectl_restore.kube.connection import connect, path_of

    return node_machine(connect(cluster).get(path_of("nodes", name=node)))


def _live_pod(name: str, cluster: ClusterFlags) -> dict[str, Any]:
    from kubectl_restore.kube.connection import connect
    from kubectl_restore.kube.pods import find_pod, pod_name

    return {"kind": "Pod", **find_pod(connect(cluster), pod_name(name))}


def _container(manifest: Any, wanted: str, files: CheckpointFiles) -> PodContainer:
    from kubectl_restore.check.pod import choose_container
    from shared.metadata import read_checkpoint

    return choose_container(manifest, wanted, read_checkpoint(files).container_name)


def _print(report: Report, output: Output) -> None:
    if output is Output.table:
        from kubectl_restore.check.table import print_report

        print_report(report)
        return
    from kubectl_restore.check.findings import KIND
    from kubectl_restore.inspect.document import as_json, as_yaml, document_of

    document = document_of(report, KIND)
    print(as_json(document) if output is Output.json else as_yaml(document).rstrip())
