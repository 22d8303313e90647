"""``kubectl restore manifest``: the pod that restores a checkpoint, every change explained."""

from __future__ import annotations

import enum
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubectl_restore.completion import pods
from kubectl_restore.ending import Debug
from kubectl_restore.grouped import with_flags
from kubectl_restore.image.options import RegistryFlags, registries
from kubectl_restore.kube.flags import ClusterFlags
from kubectl_restore.source.options import Source
from shared.contract import HANDLER
from shared.printable import safe

if TYPE_CHECKING:
    from kubectl_restore.manifest.pod import Wanted
    from kubectl_restore.manifest.workload import Written


class Output(enum.StrEnum):
    yaml = "yaml"
    json = "json"


@with_flags(registry=RegistryFlags, cluster=ClusterFlags)
def manifest(
    source: Source,
    from_pod: Annotated[
        str,
        typer.Option(
            "--from-pod",
            metavar="POD",
            help="The pod it was taken of, which the new one follows; deployment/NAME, statefulset/NAME or job/NAME "
            "gives what makes their pods restore.",
            autocompletion=pods,
        ),
    ] = "",
    filename: Annotated[
        str, typer.Option("-f", "--filename", metavar="FILE", help="The same from a manifest; - is the input.")
    ] = "",
    container: Annotated[
        str, typer.Option("-c", "--container", metavar="NAME", help="Container to restore. Default: of the same name.")
    ] = "",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the new pod. Default: POD-restored.")] = "",
    image: Annotated[
        str,
        typer.Option("--image", metavar="REF", help="The checkpoint image, where SOURCE is not one in a registry."),
    ] = "",
    annotate: Annotated[
        bool, typer.Option("--annotate", help="Leave the container's image; name the checkpoint in an annotation.")
    ] = False,
    runtime_class: Annotated[
        str, typer.Option("--runtime-class", metavar="NAME", help="RuntimeClass of the handler that restores.")
    ] = HANDLER,
    output: Annotated[
        Output, typer.Option("-o", "--output", help="json has no comments: they go to standard error.")
    ] = Output.yaml,
    debug: Debug = False,
    *,
    registry: RegistryFlags,
    cluster: ClusterFlags,
) -> None:
    """Write the manifest of a pod that restores a checkpoint.

    What must match the checkpoint is kept, what must change is changed, and a comment beside it says why.
    """
    if from_pod and filename:
        raise typer.BadParameter("give one of --from-pod and --filename", param_hint="--filename")
    from kubectl_restore.image.progress import progress
    from kubectl_restore.manifest.document import read_document
    from kubectl_restore.manifest.pod import Wanted
    from kubectl_restore.reading import open_source
    from shared.judge import read
    from shared.metadata import read_checkpoint

    access = registries(registry)
    with progress(quiet=False) as bars, open_source(source, access, cluster, bars) as opened:
        checkpoint = read_checkpoint(opened.files)
        dump = read(opened.files).dump
        has_command = opened.image is None or opened.image.has_command
        named = "" if opened.image is None or source.startswith(("oci:", "oci-archive:")) else source
    wanted = Wanted(checkpoint, dump, image or named, annotate, runtime_class, has_command)
    document = _live(from_pod, cluster) if from_pod else read_document(filename) if filename else None
    _print(_written(document, container, name, wanted), output)


def _live(given: str, cluster: ClusterFlags) -> dict[str, Any]:
    from kubectl_restore.kube.connection import connect, path_of
    from kubectl_restore.kube.pods import find_pod, pod_name
    from kubectl_restore.manifest.workload import KINDS

    connection = connect(cluster)
    kind, _, name = given.partition("/")
    if name and (found := KINDS.get(kind.lower().removesuffix("s") if kind.lower() != "sts" else "sts")):
        return {"kind": found[0], **connection.get(path_of(found[1], connection.namespace, name, group=found[2]))}
    return {"kind": "Pod", **find_pod(connection, pod_name(given))}


def _written(document: Any, container: str, name: str, wanted: Wanted) -> Written:
    from kubectl_restore.check.pod import choose_container
    from kubectl_restore.manifest.pod import bare_pod, fit
    from kubectl_restore.manifest.template import own_part
    from kubectl_restore.manifest.workload import KINDS, Written, restoring
    from shared.errors import RestoreError

    if document is None:
        made = bare_pod(wanted.checkpoint, name)
        return Written(made, fit(made, made["spec"]["containers"][0]["name"], wanted, known=False))
    chosen = choose_container(document, container, wanted.checkpoint.container_name).name
    if document["kind"] in {kind for kind, _, _ in KINDS.values()}:
        if not document.setdefault("metadata", {}).get("name"):
            raise RestoreError("PodManifestInvalid", f"the {document['kind']} has no metadata.name")
        document["metadata"].setdefault("namespace", "default")
        return restoring(document, chosen, wanted)
    if document["kind"] != "Pod":
        raise RestoreError("PodManifestInvalid", f"a {document['kind']} has no patch here; give a pod or a Deployment")
    made = own_part(document)
    comments = fit(made, chosen, wanted, known=True)
    metadata = made["metadata"]
    metadata["name"] = name or f"{str(metadata.get('name', chosen))[:54]}-restored"
    if not name:
        comments.add(metadata, "name", "another one than the pod it follows, which may still be there; see --name")
    return Written(made, comments)


def _print(written: Written, output: Output) -> None:
    from kubectl_restore.manifest.commented import as_yaml

    if written.heading:
        print(safe(f"# {written.heading}"), file=sys.stdout if output is Output.yaml else sys.stderr)
    if output is Output.yaml:
        print(as_yaml(written.document, written.comments), end="")
        return
    for path, sentence in written.comments.listed(written.document):
        print(safe(f"{path}: {sentence}"), file=sys.stderr)
    print(json.dumps(written.document, indent=4))
