"""``nri-restore``: the node side's command line."""

from __future__ import annotations

import enum
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from nri_plugin.config import DEFAULT_PATH
from nri_plugin.logs import LEVEL_VARIABLE
from shared.errors import RestoreError
from shared.printable import safe

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Restores checkpointed containers on this node.")


@app.command()
def run(
    config: Annotated[Path, typer.Option(help="Configuration file; a missing one means the defaults.")] = DEFAULT_PATH,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Runs the daemon: registers with the container runtime and prepares restores until it is stopped."""
    # Replaces this process: what a command line needs would take a third of the daemon's memory.
    if verbose:
        os.environ[LEVEL_VARIABLE] = "debug"
    os.execv(sys.executable, [sys.executable, "-m", "nri_plugin.process", "session", str(config), _version()])


class ListFormat(enum.StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"


class ReportFormat(enum.StrEnum):
    TEXT = "text"
    JSON = "json"


ConfigOption = Annotated[Path, typer.Option(help="The daemon's configuration file.")]


@app.command("list")
def list_restores(
    config: ConfigOption = DEFAULT_PATH,
    gone: Annotated[bool, typer.Option("--all", "-a", help="Also failures of containers that are gone.")] = False,
    output: Annotated[ListFormat, typer.Option("--output", "-o", help="How to print it.")] = ListFormat.TABLE,
) -> None:
    """Lists the restores on this node: container, pod, state, reason, age, checkpoint image."""
    from nri_plugin import listing
    from nri_plugin.config import load

    found = listing.entries(load(config), gone=gone)
    if output is ListFormat.JSON:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2))
    elif found:
        typer.echo(listing.table(found, wide=output is ListFormat.WIDE))
    else:
        typer.echo("no restores on this node", err=True)


@app.command()
def show(
    container: Annotated[str, typer.Argument(help="The container's id, or as much of its beginning as is unique.")],
    config: ConfigOption = DEFAULT_PATH,
    output: Annotated[ReportFormat, typer.Option("--output", "-o", help="How to print it.")] = ReportFormat.TEXT,
) -> None:
    """Shows one restore: its phases with their times, the reason, warnings, paths, and the end of restore.log."""
    from nri_plugin import listing
    from nri_plugin.config import load

    entry = listing.find(load(config), container)
    if output is ReportFormat.JSON:
        typer.echo(json.dumps(listing.document(entry), indent=2))
    else:
        typer.echo(listing.described(entry))


node = typer.Typer(no_args_is_help=True, help="Sets this node up, and takes it back.")
app.add_typer(node, name="node")

WRAPPER = Path(__file__).parent / "runtime/restore-runc"


class RuntimeChoice(enum.StrEnum):
    AUTO = "auto"
    CONTAINERD = "containerd"
    CRIO = "crio"


@node.command()
def configure(
    runtime: Annotated[RuntimeChoice, typer.Argument(help="The container runtime.")] = RuntimeChoice.AUTO,
    wraps: Annotated[str | None, typer.Option("--runtime", help="Runtime to wrap; the default one otherwise.")] = None,
    config: Annotated[Path | None, typer.Option(help="Its main configuration file; found otherwise.")] = None,
    wrapper: Annotated[Path | None, typer.Option(help="The installed restore-runc. Default: this program's.")] = None,
    etc: Annotated[
        Path | None, typer.Option(help="Folder of files, such as config.toml, to put into /etc/nri-restore.")
    ] = None,
    default: Annotated[
        bool,
        typer.Option("--default-runtime", help="Also for pods without a RuntimeClass: our handler is the default."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, print the difference.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Restart the runtime when something changed.")] = False,
) -> None:
    """Enables NRI and adds the runtime handler, with the options of the runtime it wraps; can be repeated."""
    from nri_plugin.node import changes
    from nri_plugin.node import configure as setting

    place = setting.Place(str(wrapper or WRAPPER))
    record = changes.Record.load(place.record)
    files = setting.texts_in(etc) if etc else {}
    engine = setting.find(runtime.value, config)
    wanted = setting.wanted(place, record, engine, wraps, files, default=default)
    _change(wanted, lambda: changes.apply(record, wanted), dry_run=dry_run, restart=restart)


@node.command()
def unconfigure(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, print the difference.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Restart the runtime when something changed.")] = False,
) -> None:
    """Takes back what configure changed: byte for byte, and where a file was edited since, our lines.

    What the daemon keeps for the next restore is dropped too, unless it runs.
    """
    from nri_plugin.config import load
    from nri_plugin.node import changes
    from nri_plugin.node import configure as setting
    from nri_plugin.node.in_use import refuse_in_use
    from nri_plugin.node.leftovers import drop_leftovers

    daemon_config = load(setting.DAEMON_CONFIG)
    refuse_in_use(daemon_config)
    record = changes.Record.load(setting.RECORD)
    wanted = changes.revert(record)
    if not dry_run:
        try:
            drop_leftovers(daemon_config)
        except RestoreError as error:
            typer.echo(f"not dropped: what the daemon keeps in the runtime ({error})", err=True)

    def write() -> None:
        for path, text in wanted.items():
            changes.write(path, text)
        changes.forget(record)

    _change(wanted, write, dry_run=dry_run, restart=restart)


@node.command()
def doctor(
    config: ConfigOption = DEFAULT_PATH,
    output: Annotated[ReportFormat, typer.Option("--output", "-o", help="How to print it.")] = ReportFormat.TEXT,
) -> None:
    """Says whether this node can restore, and what to do where not; the exit status is 0 (ok), 1 (warn) or 2 (fail)."""
    from nri_plugin.config import load
    from nri_plugin.node.doctor import examine, worst

    findings = list(examine(load(config)))
    if output is ReportFormat.JSON:
        typer.echo(json.dumps([asdict(each) for each in findings], indent=2))
    else:
        for each in findings:
            typer.echo(safe(f"{each.level:<5} {each.check:<13} {each.text}" + (f"; {each.fix}" if each.fix else "")))
    raise typer.Exit(worst(findings))


def _change(wanted: Mapping[Path, str | None], write: Callable[[], None], *, dry_run: bool, restart: bool) -> None:
    from nri_plugin.node import changes
    from nri_plugin.node import configure as setting

    difference = changes.diff(wanted)
    if dry_run:
        typer.echo(difference, nl=False)
        return
    # What is in our own folder is read by our programs only.
    others = {path: text for path, text in wanted.items() if path.parent != setting.DAEMON_CONFIG.parent}
    if concerns_runtime := bool(changes.diff(others)):
        setting.PENDING.touch()
    if difference:
        write()
    for line in difference.splitlines():
        if line.startswith("+++ ") and line != "+++ /dev/null":
            typer.echo(f"changed {line[4:].strip()}")
        elif line.startswith("--- ") and f"{line}\n+++ /dev/null" in difference:
            typer.echo(f"removed {line[4:].strip()}")
    if not difference:
        typer.echo("nothing to change")
    if restart and setting.PENDING.exists():
        typer.echo(f"restarted {setting.restart()}")
        setting.PENDING.unlink()
    elif concerns_runtime:
        typer.echo("restart the container runtime to put it into force; running pods go on")


@app.command("version")
def show_version() -> None:
    """Prints the version."""
    typer.echo(f"nri-restore {_version()}")


def _version() -> str:
    try:
        return version("nri-restore")
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    """Entry point: an error of ours is one line and exit status 1."""
    try:
        app()
    except RestoreError as error:
        sys.exit(f"nri-restore: {error.reason}: {error}")


if __name__ == "__main__":
    main()
