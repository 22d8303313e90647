"""kubectl's own flags for reaching a cluster, given to every verb that needs one.

Names, shorthands and meaning as in ``kubectl options`` (k8s.io/cli-runtime pkg/genericclioptions/config_flags.go).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from kubectl_restore.completion import contexts, namespaces

EPILOG: Final = "kubectl's other flags for reaching a cluster are taken too; 'kubectl options' lists them."
"""The rarer flags are hidden from --help, as kubectl hides them."""


@dataclass(frozen=True)
class ClusterFlags:
    """What the user said about the cluster; empty is what the kubeconfig says."""

    namespace: Annotated[
        str,
        typer.Option("-n", "--namespace", metavar="NAME", help="The namespace.", autocompletion=namespaces),
    ] = ""
    context: Annotated[
        str,
        typer.Option("--context", metavar="NAME", help="The kubeconfig context to use.", autocompletion=contexts),
    ] = ""
    kubeconfig: Annotated[
        Path | None, typer.Option("--kubeconfig", metavar="FILE", help="The kubeconfig file to use.")
    ] = None
    cluster: Annotated[
        str, typer.Option("--cluster", metavar="NAME", help="The kubeconfig cluster to use.", hidden=True)
    ] = ""
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="The kubeconfig user to use.", hidden=True)] = ""
    as_user: Annotated[
        str, typer.Option("--as", metavar="NAME", help="User or service account to impersonate.", hidden=True)
    ] = ""
    as_groups: Annotated[
        list[str] | None,
        typer.Option("--as-group", metavar="NAME", help="Group to impersonate; may be repeated.", hidden=True),
    ] = None
    as_uid: Annotated[str, typer.Option("--as-uid", metavar="UID", help="UID to impersonate.", hidden=True)] = ""
    as_user_extra: Annotated[
        list[str] | None,
        typer.Option(
            "--as-user-extra",
            metavar="KEY=VALUE",
            help="Extra of the user to impersonate; may be repeated.",
            hidden=True,
        ),
    ] = None
    server: Annotated[
        str, typer.Option("-s", "--server", metavar="URL", help="Address of the API server.", hidden=True)
    ] = ""
    token: Annotated[
        str, typer.Option("--token", metavar="TOKEN", help="Bearer token for the API server.", hidden=True)
    ] = ""
    certificate_authority: Annotated[
        Path | None,
        typer.Option(
            "--certificate-authority", metavar="FILE", help="CA certificates of the API server (PEM).", hidden=True
        ),
    ] = None
    client_certificate: Annotated[
        Path | None,
        typer.Option("--client-certificate", metavar="FILE", help="Client certificate (PEM).", hidden=True),
    ] = None
    client_key: Annotated[
        Path | None, typer.Option("--client-key", metavar="FILE", help="Client key (PEM).", hidden=True)
    ] = None
    tls_server_name: Annotated[
        str,
        typer.Option("--tls-server-name", metavar="NAME", help="Name in the API server's certificate.", hidden=True),
    ] = ""
    insecure_skip_tls_verify: Annotated[
        bool,
        typer.Option("--insecure-skip-tls-verify", help="Do not check the API server's certificate.", hidden=True),
    ] = False
    request_timeout: Annotated[
        str,
        typer.Option(
            "--request-timeout",
            metavar="TIME",
            help="How long to wait for one answer of the API server, such as 1s, 2m; 0 waits for ever.",
            hidden=True,
        ),
    ] = "0"
