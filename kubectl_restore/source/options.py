"""What verbs are told of a checkpoint: where it is, how it is taken, and how it comes from a node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubectl_restore.kube.duration import seconds
from kubectl_restore.kube.via import Via

if TYPE_CHECKING:
    from kubectl_restore.kube.kubelet import KubeletAccess


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Checkpoint archive or directory, checkpoint image (registry/repository:tag, oci:DIR, oci-archive:FILE), "
        "node/NAME:PATH or pod/NAME.",
    ),
]
"""Of the verbs that only read it."""


@dataclass(frozen=True)
class KubeletFlags:
    """How a checkpoint is taken."""

    timeout: Annotated[
        str,
        typer.Option("--timeout", metavar="TIME", help="How long taking the checkpoint may last, such as 30s, 10m."),
    ] = "5m"
    via: Annotated[
        Via,
        typer.Option(
            "--via",
            help="How the kubelet is asked: apiserver needs create on nodes/proxy; kubelet, whose port must be "
            "reachable, needs create on nodes/checkpoint; auto tries the second when the first is forbidden.",
        ),
    ] = Via.auto
    kubelet_address: Annotated[
        str,
        typer.Option(
            "--kubelet-address", metavar="HOST[:PORT]", help="With kubelet: its address instead of the node's."
        ),
    ] = ""
    kubelet_certificate_authority: Annotated[
        Path | None,
        typer.Option("--kubelet-certificate-authority", metavar="FILE", help="With kubelet: its CA (PEM)."),
    ] = None
    kubelet_insecure_skip_tls_verify: Annotated[
        bool,
        typer.Option("--kubelet-insecure-skip-tls-verify", help="With kubelet: do not check its certificate."),
    ] = False


@dataclass(frozen=True)
class TransferFlags:
    """How a file comes from a node."""

    transfer_image: Annotated[
        str,
        typer.Option(
            "--transfer-image",
            metavar="IMAGE",
            help="Image of the pod that reads the file on the node; it needs sleep, stat, tail and sha256sum. "
            "Default: busybox.",
        ),
    ] = ""
    transfer_namespace: Annotated[
        str,
        typer.Option(
            "--transfer-namespace",
            metavar="NAME",
            help="Namespace of that pod; it must admit hostPath volumes. Default: the one of -n.",
        ),
    ] = ""


def kubelet_access(flags: KubeletFlags) -> tuple[KubeletAccess, float]:
    """What the flags say, and the time limit in seconds; raises typer.BadParameter."""
    from kubectl_restore.kube.kubelet import KubeletAccess

    limit = seconds(flags.timeout)
    if not limit:
        raise typer.BadParameter(f"{flags.timeout} is not a duration such as 30s or 10m", param_hint="--timeout")
    access = KubeletAccess(
        flags.via,
        flags.kubelet_address,
        flags.kubelet_certificate_authority,
        flags.kubelet_insecure_skip_tls_verify,
    )
    return access, limit
