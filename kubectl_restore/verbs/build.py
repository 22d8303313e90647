"""``kubectl-restore build``: packages a checkpoint as an OCI image and pushes or writes it, in one pass."""

from __future__ import annotations

import enum
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubectl_restore.completion import sources
from kubectl_restore.ending import Debug
from kubectl_restore.grouped import with_flags
from kubectl_restore.image.options import RegistryFlags, registries
from kubectl_restore.kube.flags import ClusterFlags
from kubectl_restore.source.names import HELP, LocalFile, PodContainer, source_name
from kubectl_restore.source.options import KubeletFlags, TransferFlags, kubelet_access
from shared.printable import safe

if TYPE_CHECKING:
    from kubectl_restore.image.access import Access
    from kubectl_restore.image.base import AccessTo
    from kubectl_restore.image.build import Built, Order
    from kubectl_restore.image.destination import Destination
    from kubectl_restore.image.images import Image
    from kubectl_restore.image.measure import Ahead
    from kubectl_restore.image.progress import Progress
    from kubectl_restore.kube.connection import Connection
    from kubectl_restore.source.names import SourceName
    from shared.compression import Compression
    from shared.oci import Reference


SignKey = Annotated[
    str,
    typer.Option(
        "--sign-key",
        metavar="KEY",
        help="Sign the pushed image with this key of cosign's, which must be in the PATH: a file, or a KMS address. "
        "Nothing but the registry is asked.",
    ),
]


class Format(enum.StrEnum):
    archive = "archive"
    layered = "layered"


class Compress(enum.StrEnum):
    none = "none"
    gzip = "gzip"
    zstd = "zstd"


class Output(enum.StrEnum):
    name = "name"
    json = "json"


CompressFlag = Annotated[
    Compress | None,
    typer.Option(
        "--compress",
        help="Of the layers made of the checkpoint: zstd where the network is slower than some Gbit/s or space counts, "
        "gzip where zstd cannot be read. Default: as the checkpoint is, which takes no time, here or on the node.",
    ),
]


@with_flags(registry=RegistryFlags, kubelet=KubeletFlags, transfer=TransferFlags, cluster=ClusterFlags)
def build(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=HELP, autocompletion=sources)],
    tag: Annotated[str, typer.Option("-t", "--tag", metavar="REF", help="Name of the image: registry/repository:tag.")],
    image_format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="layered: the base image's layers, the changed files and the process; nothing left to do on the node. "
            "archive: the archive as the only layer, which other tools restore too. "
            "Default: layered when the base image can be read.",
        ),
    ] = None,
    compress: CompressFlag = None,
    push: Annotated[bool, typer.Option("--push", help="Push the image to the registry in REF.")] = False,
    oci_layout: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Add the image to an OCI layout directory, made when missing.")
    ] = None,
    oci_archive: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the image as an OCI archive.")] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGE",
            help="The image that the container was started from: REF, oci:DIR[:NAME] or oci-archive:FILE[:NAME]. "
            "Default: as recorded in the checkpoint.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Build and push nothing: show the size and the time that each compression costs, measured on the "
            "checkpoint, and where the base image's layers come from.",
        ),
    ] = False,
    sign_key: SignKey = "",
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no closing line.")] = False,
    output: Annotated[
        Output | None, typer.Option("-o", "--output", help="Print the image as name (REF@digest) or json.")
    ] = None,
    debug: Debug = False,
    *,
    kubelet: KubeletFlags,
    transfer: TransferFlags,
    registry: RegistryFlags,
    cluster: ClusterFlags,
) -> None:
    """Package a checkpoint as an OCI image.

    The archive is read once: hashed, and pushed or written, at the same time; nothing is unpacked.
    """
    started = time.monotonic()
    reference = reference_of(tag)
    places = [push, oci_layout is not None, oci_archive is not None].count(True)
    if places != 1 and not (dry_run and places == 0):
        raise typer.BadParameter("say where the image goes: one of --push, --oci-layout DIR, --oci-archive FILE")
    named = source_name(source)
    if dry_run and isinstance(named, PodContainer):
        raise typer.BadParameter("--dry-run takes no checkpoint of a pod; name one that was taken", param_hint="SOURCE")
    if dry_run and output is Output.name:
        raise typer.BadParameter("--dry-run makes no image that has a name; use -o json", param_hint="--output")
    sign = signer_of(sign_key, push=push)
    written = oci_layout or oci_archive
    with ExitStack() as stack:
        ahead = None
        if image_format is Format.archive and written and not dry_run and compress in (None, Compress.none):
            ahead = _hashed_ahead(named, stack)
        # Loading these takes as long as hashing a good part of an archive.
        from kubectl_restore.image.build import Order
        from kubectl_restore.image.build import build as build_image
        from kubectl_restore.image.progress import progress
        from kubectl_restore.source.opening import Fetching, opened

        access = registries(registry, reference.registry if push else "")
        bars = stack.enter_context(progress(quiet=quiet))
        kubelet_way, timeout_s = kubelet_access(kubelet)
        fetching = Fetching(
            partial(_connect, cluster),
            bars,
            folder=written.absolute().parent if written else None,
            image=transfer.transfer_image,
            namespace=transfer.transfer_namespace,
            timeout_s=timeout_s,
            access=kubelet_way,
            note=_note if not quiet else lambda sentence: None,
            warn=_warn,
        )
        checkpoint = stack.enter_context(opened(named, fetching))
        order = Order(
            checkpoint.path,
            None if image_format is None else image_format.value,
            base,
            not push,
            compression_of(compress),
            ahead,
        )
        destination = partial(destination_of, reference, oci_layout, oci_archive, access(reference.registry), bars)
        place = _place(reference, oci_layout, oci_archive) if places else ""
        if dry_run:
            _try(order, access, destination if places else None, reference, place, output)
            return
        built = build_image(order, access, destination, _warn)
        if sign:
            sign(f"{reference.name}@{built.digest}", access(reference.registry))
    seconds = time.monotonic() - started
    _report(reference, built, "" if push else place, seconds, output, quiet=quiet)


def _hashed_ahead(source: SourceName, stack: ExitStack) -> Ahead | None:
    """Begins with the digest of a plain archive on this machine; ``stack`` ends it."""
    from kubectl_restore.image.measure import Ahead
    from kubectl_restore.image.source import FileRange
    from shared.compression import Compression, sniff

    if not isinstance(source, LocalFile) or source.path.is_symlink() or not source.path.is_file():
        return None
    try:
        with source.path.open("rb") as file:
            plain = sniff(file.read(4)) is Compression.NONE
    except OSError:
        return None  # whoever opens it next has the sentence for that
    return stack.enter_context(Ahead(FileRange.whole(source.path))) if plain else None


def _connect(cluster: ClusterFlags) -> Connection:
    from kubectl_restore.kube.connection import connect

    return connect(cluster)


def reference_of(tag: str) -> Reference:
    from shared.errors import RestoreError
    from shared.oci import parse_reference

    try:
        reference = parse_reference(tag)
    except RestoreError as error:
        raise typer.BadParameter(str(error), param_hint="--tag") from error
    if reference.digest:
        raise typer.BadParameter("give a tag, not a digest: the digest is what the build finds out", param_hint="--tag")
    return reference


def compression_of(wanted: Compress | None) -> Compression | None:
    from shared.compression import Compression

    return None if wanted is None else Compression(wanted.value)


def signer_of(key: str, *, push: bool = True) -> Callable[[str, Access], None] | None:
    """What signs, found before anything is built; None without ``key``."""
    if not key:
        return None
    if not push:
        raise typer.BadParameter(
            "a signature goes beside the image in its registry; add --push", param_hint="--sign-key"
        )
    from kubectl_restore.image.sign import signer

    return signer(key).sign


def destination_of(
    reference: Reference,
    oci_layout: Path | None,
    oci_archive: Path | None,
    access: Access,
    bars: Progress,
    base: Image | None,
) -> Destination:
    if oci_layout:
        from kubectl_restore.image.layout import LayoutDestination

        return LayoutDestination(oci_layout, reference, bars)
    if oci_archive:
        from kubectl_restore.image.oci_archive import ArchiveDestination

        return ArchiveDestination(oci_archive, reference, bars)
    from kubectl_restore.image.registry_images import RegistryDestination, RegistryImages

    from_registry = base.images if base and isinstance(base.images, RegistryImages) else None
    return RegistryDestination(reference, access, bars, base=from_registry)


def _place(reference: Reference, oci_layout: Path | None, oci_archive: Path | None) -> str:
    if oci_layout:
        return f"OCI layout {oci_layout}"
    return f"OCI archive {oci_archive}" if oci_archive else f"registry {reference.registry}"


def _try(
    order: Order,
    access: AccessTo,
    destination: Callable[[Image | None], Destination] | None,
    reference: Reference,
    place: str,
    output: Output | None,
) -> None:
    from kubectl_restore.image.build import prepared
    from kubectl_restore.image.trial import trial
    from kubectl_restore.image.trial_report import as_json, as_text

    with prepared(replace(order, to_disk=False, compression=None), access, _warn) as ready:
        found = trial(ready, destination(ready.base) if destination else None)
    if output is Output.json:
        print(json.dumps(as_json(found, str(reference), order.compression), indent=2))
    else:
        print(as_text(found, str(reference), place, order.compression))


def _note(sentence: str) -> None:
    print(safe(sentence), file=sys.stderr)


def _warn(sentence: str) -> None:
    print(safe(f"warning: {sentence}"), file=sys.stderr)


def _report(
    reference: Reference, built: Built, place: str, seconds: float, output: Output | None, *, quiet: bool
) -> None:
    if output is Output.name:
        print(f"{reference}@{built.digest}")
    elif output is Output.json:
        document = {
            "reference": str(reference),
            "digest": built.digest,
            "format": built.image_format,
            "sizeBytes": built.size,
            "baseDigest": built.base_digest,
            "seconds": round(seconds, 3),
        }
        print(json.dumps(document, indent=2))
    elif not quiet:
        from kubectl_restore.printing import size_of

        done = f"wrote {reference} to the {place}" if place else f"pushed {reference}"
        print(f"{done}: {built.digest} ({built.image_format}, {size_of(built.size)}) in {seconds:.1f} s")
