"""Podman on a machine of its own: runs containers from the tests' registry and checkpoints them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.e2e.node.machine import Machine
from tests.e2e.node.waiting import wait_for

Runtime = Literal["runc", "crun"]


@dataclass(frozen=True)
class Podman:
    machine: Machine
    folder: Path
    """On the host, for exported archives."""
    runtime: Runtime = "runc"

    def __call__(self, *words: str) -> str:
        """What ``podman`` printed; raises CommandFailed."""
        # Else it warns of cgroup v1 at each call.
        quiet = {"PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}
        command = ["podman", "--runtime", f"/usr/bin/{self.runtime}", *words]
        return self.machine.run(command, timeout_s=300, env=quiet).stdout

    def run(self, name: str, image: str, *command: str) -> None:
        """Starts a container and waits until it has printed some lines."""
        self("run", "--detach", "--name", name, "--tls-verify=false", image, *command)
        wait_for(lambda: self("logs", name).count("\n") > 3, f"{name} to print")

    def checkpoint(self, name: str, file: str, *options: str) -> Path:
        """Exports a checkpoint, which ends the container unless told otherwise; where it lies on the host."""
        self("container", "checkpoint", f"--export=/tmp/{file}", *options, name)
        return Path(shutil.copyfile(self.machine.path(f"/tmp/{file}"), self.folder / file))

    def checkpoint_image(self, name: str, image: str) -> None:
        """Makes a checkpoint image, pushes it, and ends the container."""
        self("container", "checkpoint", f"--create-image={image}", name)
        self("push", "--quiet", "--tls-verify=false", image)
