"""What on this node was made through restore-runc: its runtime calls that to stop it, for as long as it is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nri_plugin.config import Config
from nri_plugin.node.processes import option, processes
from shared.errors import Refused

NAME = "restore-runc"
TASKS = "io.containerd.runtime.v2.task"
"""Below containerd's state directory, ``<namespace>/<id>`` for every container and sandbox with a shim
(core/runtime/v2/bundle.go); its file ``runtime`` names the OCI runtime (cmd/containerd-shim-runc-v2/runc/util.go)."""


def made_through_us(config: Config) -> int:
    """How many containers and pod sandboxes: on CRI-O those of whose conmon it is the runtime."""
    return sum(Path(each).name == NAME for each in _runtimes(config.runtime.socket.parent))


def refuse_in_use(config: Config) -> None:
    """Raises Refused("HandlerInUse") where the runtime would be left without what it made containers with."""
    if count := made_through_us(config):
        raise Refused(
            "HandlerInUse",
            f"{count} containers and pod sandboxes on this node were made through {NAME}, which their runtime needs to "
            "stop them; drain the node, then do this again (where the handler is the default, run `nri-restore node "
            "configure --restart`, or roll the DaemonSet out without defaultRuntime, before: what comes back is then "
            "made without it)",
        )


def _runtimes(state: Path) -> Iterator[str]:
    for file in (state / TASKS).glob("*/*/runtime"):
        try:
            yield file.read_text().strip()
        except OSError:
            continue
    for words in processes("conmon"):
        yield option(words, "-r", "--runtime") or ""
