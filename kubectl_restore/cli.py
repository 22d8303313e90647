"""kubectl-restore: registers the verbs, each in a file of its own."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

import typer

from kubectl_restore.ending import ending
from kubectl_restore.kube.flags import EPILOG

VERBS: Final = ("checkpoint", "build", "manifest", "run", "status", "inspect", "check")
"""As --help lists them; each is the function of that name in the module of that name."""


def application(only: str = "") -> typer.Typer:
    """The command with every verb, or with one, which saves a third of the time to start."""
    app = typer.Typer(
        name="kubectl-restore",
        help="Takes checkpoints of running containers, packages them as images and restores pods from them.",
        add_completion=False,  # typer's scripts know no command of two words; kubectl asks kubectl_complete-restore
        rich_markup_mode=None,  # rich would double the start-up time of --help
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for verb in (only,) if only in VERBS else VERBS:
        module = import_module(f"kubectl_restore.verbs.{verb}")
        app.command(verb, epilog=EPILOG)(getattr(module, verb))
    return app


def main() -> None:
    with ending():
        application(sys.argv[1] if len(sys.argv) > 1 else "")(prog_name="kubectl restore")


def _root(context: typer.Context) -> None:
    """Without a verb it says what there is, as kubectl does."""
    if context.invoked_subcommand is None:
        print(context.get_help())
