"""kubectl-restore: registers the verbs, each in a file of its own."""

from __future__ import annotations

import typer

from kubectl_restore.ending import ending
from kubectl_restore.kube.flags import EPILOG
from kubectl_restore.verbs.build import build
from kubectl_restore.verbs.check import check
from kubectl_restore.verbs.checkpoint import checkpoint
from kubectl_restore.verbs.inspect import inspect
from kubectl_restore.verbs.manifest import manifest
from kubectl_restore.verbs.run import run
from kubectl_restore.verbs.status import status

app = typer.Typer(
    name="kubectl-restore",
    help="Takes checkpoints of running containers, packages them as images and restores pods from them.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich would double the start-up time of --help
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Keeps the verbs subcommands, however many there are."""


app.command("checkpoint", epilog=EPILOG)(checkpoint)
app.command("build", epilog=EPILOG)(build)
app.command("manifest", epilog=EPILOG)(manifest)
app.command("run", epilog=EPILOG)(run)
app.command("status", epilog=EPILOG)(status)
app.command("inspect", epilog=EPILOG)(inspect)
app.command("check", epilog=EPILOG)(check)


def main() -> None:
    with ending():
        app(prog_name="kubectl restore")
