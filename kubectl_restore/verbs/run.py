"""``kubectl restore run``: from a running pod to a resumed copy of it."""

from __future__ import annotations

import enum
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubectl_restore.completion import containers, pods
from kubectl_restore.ending import Debug
from kubectl_restore.grouped import with_flags
from kubectl_restore.image.options import RegistryFlags, registries
from kubectl_restore.kube.duration import seconds
from kubectl_restore.kube.flags import ClusterFlags
from kubectl_restore.source.options import KubeletFlags, TransferFlags, kubelet_access
from kubectl_restore.verbs.build import CompressFlag, SignKey, compression_of, reference_of, signer_of
from shared.contract import HANDLER

if TYPE_CHECKING:
    from kubectl_restore.kube.connection import Connection


class DryRun(enum.StrEnum):
    none = "none"
    client = "client"
    server = "server"


class Output(enum.StrEnum):
    json = "json"


@with_flags(registry=RegistryFlags, kubelet=KubeletFlags, transfer=TransferFlags, cluster=ClusterFlags)
def run(
    pod: Annotated[str, typer.Argument(metavar="POD", help="NAME or pod/NAME.", autocompletion=pods)],
    tag: Annotated[str, typer.Option("-t", "--tag", metavar="REF", help="Name of the image: registry/repository:tag.")],
    kubelet: KubeletFlags,
    transfer: TransferFlags,
    registry: RegistryFlags,
    cluster: ClusterFlags,
    container: Annotated[
        str,
        typer.Option("-c", "--container", metavar="NAME", help="The container.", autocompletion=containers),
    ] = "",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the copy. Default: POD-restored.")] = "",
    to_node: Annotated[str, typer.Option("--to-node", metavar="NODE", help="Where the copy is to run.")] = "",
    pull: Annotated[
        str,
        typer.Option("--pull", metavar="REF", help="What the nodes call the image, when not as it is pushed."),
    ] = "",
    base: Annotated[
        str, typer.Option("--base", metavar="IMAGE", help="As for build: the image the container was started from.")
    ] = "",
    compress: CompressFlag = None,
    delete_source: Annotated[
        bool, typer.Option("--delete-source", help="Delete POD once the copy is Ready, and only then.")
    ] = False,
    wait: Annotated[
        str, typer.Option("--wait", metavar="TIME", help="How long the copy may take to be Ready, such as 5m.")
    ] = "5m",
    runtime_class: Annotated[
        str, typer.Option("--runtime-class", metavar="NAME", help="RuntimeClass of the handler that restores.")
    ] = HANDLER,
    dry_run: Annotated[
        DryRun, typer.Option("--dry-run", help="Change nothing; server has the API server judge the pod as well.")
    ] = DryRun.none,
    output: Annotated[
        Output | None, typer.Option("-o", "--output", help="One JSON event a line; with --dry-run, the copy as JSON.")
    ] = None,
    sign_key: SignKey = "",
    debug: Debug = False,
) -> None:
    """Checkpoint a running pod, package and push it, and resume it as a new pod.

    The pod goes on running. What was made is undone when a later step fails or is interrupted.
    """
    limit_s = seconds(wait)
    if not limit_s:
        raise typer.BadParameter(f"{wait} is not a duration such as 30s or 5m", param_hint="--wait")
    reference = reference_of(tag)
    way, timeout_s = kubelet_access(kubelet)
    from kubectl_restore.kube.connection import connect
    from kubectl_restore.kube.pods import find_pod, pod_name, target
    from kubectl_restore.manifest.template import own_part
    from kubectl_restore.run.copy_pod import bind, check_runtime_class, free
    from kubectl_restore.run.flow import DELETE, PHASES, Move, move
    from kubectl_restore.run.phases import Phases, shown
    from kubectl_restore.source.opening import Fetching

    connection = connect(cluster)
    source = find_pod(connection, pod_name(pod))
    chosen = target(source, container)
    copy = own_part(source)
    copy["metadata"]["name"] = name or f"{chosen.pod[:54]}-restored"
    free(connection, copy["metadata"]["name"])
    check_runtime_class(connection, runtime_class)
    if to_node:
        bind(connection, copy, to_node)
    image = pull or str(reference)
    if dry_run is not DryRun.none:
        _dry_run(connection, copy, chosen.container, image, runtime_class, dry_run, output)
        return
    sign = signer_of(sign_key)
    wanted = Move(
        chosen,
        bool(source["metadata"].get("ownerReferences")),
        copy,
        reference,
        image,
        base,
        compression_of(compress),
        registries(registry, reference.registry),
        runtime_class,
        limit_s,
        delete_source,
        sign,
    )
    with shown([*PHASES, *([DELETE] if delete_source else [])], as_json=output is not None) as view:
        phases = Phases(view)
        fetching = Fetching(
            lambda: connection,
            phases,
            image=transfer.transfer_image,
            namespace=transfer.transfer_namespace,
            timeout_s=timeout_s,
            access=way,
            warn=phases.note,
        )
        node = move(wanted, connection, fetching, phases)
    if output is None:
        print(f"pod/{wanted.copy_name} resumed on node {node}")
    else:
        done = {"event": "resumed", "namespace": chosen.namespace, "pod": wanted.copy_name, "node": node}
        print(json.dumps({**done, "image": str(reference)}))


def _dry_run(
    connection: Connection,
    copy: dict[str, Any],
    container: str,
    image: str,
    runtime_class: str,
    how: DryRun,
    output: Output | None,
) -> None:
    """The copy as far as it is known before there is a checkpoint."""
    from kubectl_restore.kube.connection import path_of

    copy["spec"]["runtimeClassName"] = runtime_class
    for each in copy["spec"]["containers"]:
        if each["name"] == container:
            each["image"] = image
            each.pop("command", None)
            each.pop("args", None)
    if how is DryRun.server:
        connection.call("POST", path_of("pods", connection.namespace), copy, query={"dryRun": "All"})
    print(f"nothing was done ({how.value} dry run); the copy, before it is fitted to the checkpoint:", file=sys.stderr)
    if output is Output.json:
        print(json.dumps(copy, indent=4))
        return
    from kubectl_restore.manifest.commented import Comments, as_yaml

    print(as_yaml(copy, Comments()), end="")
