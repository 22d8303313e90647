"""The options of every verb that may talk to a registry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kubectl_restore.image.base import AccessTo


@dataclass(frozen=True)
class RegistryFlags:
    """How registries are reached."""

    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Talk plain HTTP to registries; localhost is tried both ways.")
    ] = False
    tls_verify: Annotated[
        bool, typer.Option("--tls-verify/--no-tls-verify", help="Check registries' certificates.")
    ] = True
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", metavar="FILE", help="CA certificates (PEM) to trust besides the system's."),
    ] = None
    authfile: Annotated[
        Path | None,
        typer.Option(
            "--authfile", metavar="FILE", help="Registry logins. Default: where podman, skopeo and docker keep them."
        ),
    ] = None


def registries(flags: RegistryFlags, pushed_to: str | None = None) -> AccessTo:
    """How to reach each registry.

    ``pushed_to``: --plain-http is about that one; another, a base image's, may still speak TLS. Empty: about none.
    """
    from kubectl_restore.image.access import Access

    named = Access("always" if flags.plain_http else "never", flags.tls_verify, flags.ca_file, flags.authfile)
    if pushed_to is None:
        return lambda host: named
    other = replace(named, plain_http="probe") if flags.plain_http else named
    return lambda host: named if host == pushed_to else other
