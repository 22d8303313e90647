"""``kubectl restore run``: from a running pod to a resumed copy of it."""

from __future__ import annotations

import enum
import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubectl_restore.completion import containers, pods
from kubectl_restore.ending import Debug
from kubectl_restore.grouped import with_flags
from kubectl_restore.kube.duration import seconds
from kubectl_restore.kube.flags import ClusterFlags
from kubectl_restore.source.options import KubeletFlags, TransferFlags, kubelet_access
from kubectl_restore.verbs.build import CompressFlag, compression_of, destination_of, reference_of
from kubectl_restore.verbs.inspect import AuthFile, CaFile, PlainHttp, TlsVerify

if TYPE_CHECKING:
    from kubectl_restore.kube.connection import Connection


class DryRun(enum.StrEnum):
    none = "none"
    client = "client"
    server = "server"


class Output(enum.StrEnum):
    json = "json"


@with_flags(kubelet=KubeletFlags, transfer=TransferFlags, cluster=ClusterFlags)
def run(
    pod: Annotated[str, typer.Argument(metavar="POD", help="NAME or pod/NAME.", autocompletion=pods)],
    tag: Annotated[str, typer.Option("-t", "--tag", metavar="REF", help="Name of the image: registry/repository:tag.")],
    kubelet: KubeletFlags,
    transfer: TransferFlags,
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
    dry_run: Annotated[
        DryRun, typer.Option("--dry-run", help="Change nothing; server has the API server judge the pod as well.")
    ] = DryRun.none,
    output: Annotated[Output | None, typer.Option("-o", "--output", help="One JSON event a line.")] = None,
    plain_http: PlainHttp = False,
    tls_verify: TlsVerify = True,
    ca_file: CaFile = None,
    authfile: AuthFile = None,
    debug: Debug = False,
) -> None:
    """Checkpoint a running pod, package and push it, and resume it as a new pod.

    The pod goes on running. A copy that does not become Ready, or is interrupted, is deleted again.
    """
    from kubectl_restore.image.access import Access
    from kubectl_restore.image.build import Order
    from kubectl_restore.image.build import build as build_image
    from kubectl_restore.image.progress import progress
    from kubectl_restore.kube.connection import connect, path_of
    from kubectl_restore.kube.pods import find_pod, pod_name, target
    from kubectl_restore.manifest.pod import Wanted, fit
    from kubectl_restore.manifest.template import own_part
    from kubectl_restore.run.copy_pod import await_ready, bind, created, free
    from kubectl_restore.run.phases import Phases
    from kubectl_restore.source.names import NodeFile
    from kubectl_restore.source.opening import Fetching, checkpoint, opened
    from shared.archive import open_checkpoint
    from shared.criu.dump import read_dump
    from shared.metadata import read_checkpoint

    reference = reference_of(tag)
    way, timeout_s = kubelet_access(kubelet)
    limit_s = seconds(wait)
    if not limit_s:
        raise typer.BadParameter(f"{wait} is not a duration such as 30s or 5m", param_hint="--wait")
    connection = connect(cluster)
    source = find_pod(connection, pod_name(pod))
    chosen = target(source, container)
    copy = own_part(source)
    copy["metadata"]["name"] = name or f"{chosen.pod[:54]}-restored"
    free(connection, copy["metadata"]["name"])
    if to_node:
        bind(connection, copy, to_node)
    image = pull or str(reference)
    if dry_run is not DryRun.none:
        _dry_run(connection, copy, chosen.container, image, dry_run)
        return
    pushed_to = Access("always" if plain_http else "never", tls_verify, ca_file, authfile)
    other = Access("probe" if plain_http else "never", tls_verify, ca_file, authfile)
    with progress(quiet=output is not None) as bars:
        phases = Phases(bars, as_json=output is not None)
        fetching = Fetching(
            lambda: connection,
            phases,
            image=transfer.transfer_image,
            namespace=transfer.transfer_namespace,
            timeout_s=timeout_s,
            access=way,
            warn=phases.note,
        )
        with phases.phase("checkpoint", chosen.called):
            taken = checkpoint(connection, chosen.pod, chosen.container, fetching)
        place = NodeFile(taken.target.node, taken.path)
        phases.note(f"the archive stays on its node: node/{place.node}:{place.path}")
        with phases.phase("push", f"to {reference}"), opened(place, fetching) as archive:
            order = Order(archive.path, None, base or None, compression=compression_of(compress))
            destination = partial(destination_of, reference, None, None, pushed_to, phases)
            built = build_image(
                order, lambda host: pushed_to if host == reference.registry else other, destination, phases.note
            )
            with open_checkpoint(archive.path) as files:
                wanted = Wanted(read_checkpoint(files), read_dump(files), image)
        fit(copy, chosen.container, wanted, known=True)
        copied = copy["metadata"]["name"]
        try:
            with created(connection, copy), phases.phase("resume", f"pod {connection.namespace}/{copied}"):
                node = await_ready(connection, copied, limit_s)
        except BaseException:
            phases.note(f"pod {copied} is deleted again; the image {reference}@{built.digest} stays in its registry")
            raise
        phases.note(f"pod {connection.namespace}/{copied} is Ready on node {node}")
        if delete_source:
            with phases.phase("delete", f"pod {connection.namespace}/{chosen.pod}"):
                body = {"preconditions": {"uid": chosen.uid}}
                connection.call("DELETE", path_of("pods", chosen.namespace, chosen.pod), body)
            if source["metadata"].get("ownerReferences"):
                phases.note("its controller may make another one")
    if output is None:
        print(f"pod/{copied} resumed on node {node}")


def _dry_run(connection: Connection, copy: dict[str, Any], container: str, image: str, how: DryRun) -> None:
    """The copy as far as it is known before there is a checkpoint."""
    from kubectl_restore.kube.connection import path_of
    from shared.contract import HANDLER

    copy["spec"]["runtimeClassName"] = HANDLER
    for each in copy["spec"]["containers"]:
        if each["name"] == container:
            each["image"] = image
            each.pop("command", None)
            each.pop("args", None)
    if how is DryRun.server:
        connection.call("POST", path_of("pods", connection.namespace), copy, query={"dryRun": "All"})
    print(f"nothing was done ({how.value} dry run); the copy, before it is fitted to the checkpoint:", file=sys.stderr)
    print(json.dumps(copy, indent=4))
