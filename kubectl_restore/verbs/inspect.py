"""``kubectl-restore inspect``: what a checkpoint holds, as a tree, a document or a page."""

from __future__ import annotations

import enum
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from kubectl_restore.ending import Debug
from kubectl_restore.grouped import with_flags
from kubectl_restore.image.options import RegistryFlags, registries
from kubectl_restore.kube.flags import ClusterFlags
from kubectl_restore.source.options import Source
from shared.errors import RestoreError


class Output(enum.StrEnum):
    json = "json"
    yaml = "yaml"


@with_flags(registry=RegistryFlags, cluster=ClusterFlags)
def inspect(
    source: Source,
    output: Annotated[
        Output | None, typer.Option("-o", "--output", help="Print a document instead of the tree.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write one HTML page that needs nothing else; - is the output."),
    ] = None,
    debug: Debug = False,
    *,
    registry: RegistryFlags,
    cluster: ClusterFlags,
) -> None:
    """Show what a checkpoint holds: processes, memory, files, sockets, mounts, rights, and what will be lost.

    Only command lines are read from the memory; nothing is unpacked or run.
    """
    from kubectl_restore.image.progress import progress
    from kubectl_restore.inspect.gather import gather
    from kubectl_restore.reading import open_source

    access = registries(registry)
    with progress(quiet=False) as bars, open_source(source, access, cluster, bars) as opened:
        found = gather(opened.files, source)
    if html:
        from kubectl_restore.inspect.page import page_of

        write(html, page_of(found))
        if output is None:
            return
    if output is None:
        from kubectl_restore.inspect.tree import tree_of
        from kubectl_restore.printing import print_tree

        print_tree(tree_of(found))
        return
    from kubectl_restore.inspect.document import as_json, as_yaml, document_of
    from kubectl_restore.inspect.facts import KIND

    document = document_of(found, KIND)
    print(as_json(document) if output is Output.json else as_yaml(document).rstrip())


def write(path: Path, text: str) -> None:
    """Writes the whole file or none; only its owner may read it, as the checkpoint itself."""
    if str(path) == "-":
        sys.stdout.write(text)
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise RestoreError("FileUnwritable", f"cannot write {path}: {error.strerror}") from error
        raise
