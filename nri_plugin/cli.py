"""``nri-restore``: the node side's command line."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from nri_plugin.config import DEFAULT_PATH
from shared.errors import RestoreError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Restores checkpointed containers on this node.")


@app.command()
def run(
    config: Annotated[Path, typer.Option(help="Configuration file; a missing one means the defaults.")] = DEFAULT_PATH,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Runs the daemon: registers with the container runtime and prepares restores until it is stopped."""
    # Replaces this process: what a command line needs would take a third of the daemon's memory.
    words = [sys.executable, "-m", "nri_plugin.process", "session", str(config), "DEBUG" if verbose else "INFO"]
    os.execv(sys.executable, words)


@app.command("version")
def show_version() -> None:
    """Prints the version."""
    try:
        typer.echo(f"nri-restore {version('nri-restore')}")
    except PackageNotFoundError:
        typer.echo("nri-restore, not installed")


def main() -> None:
    """Entry point: an error of ours is one line and exit status 1."""
    try:
        app()
    except RestoreError as error:
        sys.exit(f"nri-restore: {error.reason}: {error}")


if __name__ == "__main__":
    main()
