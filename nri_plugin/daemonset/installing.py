"""Puts the program on the node and the node's runtime under it, and takes both back.

Everything is imported before the node is entered: there, the same paths may hold another version, or nothing.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nri_plugin.node.configure
import nri_plugin.node.leftovers  # noqa: F401
from nri_plugin import cli
from nri_plugin.config import DEFAULT_PATH, load
from nri_plugin.daemonset.entering import enter_node, kept
from nri_plugin.daemonset.places import CURRENT, FILES, PLACE, TMPFILES
from nri_plugin.instance import only_instance
from nri_plugin.node.in_use import refuse_in_use
from nri_plugin.restore.cleanup import delete
from nri_plugin.restore.mounting import delete_tree
from nri_plugin.restore.plan import plans_in
from shared.errors import Unavailable


def install(tree: Path, *, default: bool = False) -> None:
    """Copies the tree to the node and configures the runtime, which is restarted only when that changed something.

    ``default``: the handler becomes the runtime's default. Raises Unavailable("NodeStorageFailed"), and what
    `node configure` raises.
    """
    source, files = kept(tree), kept(FILES)
    assert source
    enter_node()
    try:
        _copy(source, PLACE / tree.name)
        _switch(tree.name)
        for other in _trees():
            if other.name != tree.name:
                shutil.rmtree(other)
        if TMPFILES.parent.is_dir():
            shutil.copyfile(CURRENT / TMPFILES.name, TMPFILES)
    except OSError as error:
        said = error.strerror or str(error.args[0][0][2])  # shutil.Error has a list of what failed
        raise Unavailable(
            "NodeStorageFailed",
            f"the program cannot be put into {PLACE} of the node: {said}; make room there, and that it can be written",
        ) from error
    cli.configure(etc=files, default=default, restart=True)


def _copy(source: Path, target: Path) -> None:
    """All or nothing, also when the node loses power meanwhile."""
    if target.is_dir():
        return
    new = target.with_name(f".{target.name}.new")
    if new.exists():
        shutil.rmtree(new)
    try:
        shutil.copytree(f"{source}/.", new, symlinks=True)
        os.sync()
        new.rename(target)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)  # the node may have no room for half of it either
        raise
    print(f"copied the program to {target}", flush=True)


def _switch(name: str) -> None:
    link = PLACE / ".current.new"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    link.rename(CURRENT)


def _trees() -> list[Path]:
    """Every copy of the program, half ones too; nothing else that may be in the folder."""
    return [
        each
        for each in PLACE.glob("*")
        if not each.is_symlink() and ((each / "bin/python3").exists() or each.name.endswith(".new"))
    ]


def uninstall() -> None:
    """Takes everything back but logs; raises Refused("HandlerInUse"), Unavailable("AlreadyRunning")."""
    enter_node()
    config = load(DEFAULT_PATH)
    refuse_in_use(config)
    lock = only_instance(config)
    for plan in plans_in(config.paths.plans):
        delete(plan)
    os.close(lock)
    cli.unconfigure(restart=True)
    delete_tree(config.paths.plans)
    if config.paths.state.is_dir():
        delete_tree(config.paths.state)
    TMPFILES.unlink(missing_ok=True)
    CURRENT.unlink(missing_ok=True)
    for tree in _trees():
        shutil.rmtree(tree)
    if PLACE.is_dir() and not any(PLACE.iterdir()):
        PLACE.rmdir()
    print("nri-restore is gone from this node, but for its logs", flush=True)
