"""Whether a dump may become an image at all: whole and consistent, and of which machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.archive import CheckpointFiles
from shared.criu.tasks import Machine
from shared.criu.tmpfs import read_tmpfs
from shared.judge import read

_ARCHITECTURES: Final[Mapping[Machine, str]] = {
    "x86_64": "amd64",
    "arm": "arm",
    "aarch64": "arm64",
    "ppc64": "ppc64le",
    "s390": "s390x",
    "mips": "mips64le",
    "loongarch64": "loong64",
    "riscv64": "riscv64",
}
"""CRIU's machine types (images/core.proto) as OCI names them (Go's GOARCH)."""


def check_dump(files: CheckpointFiles) -> str:
    """The machine's name as OCI has it.

    Raises CheckpointInvalid for a dump that is damaged or incomplete, Refused for one that no node restores in any pod.
    """
    dump = read(files).dump
    read_tmpfs(files, dump.mounts)
    return _ARCHITECTURES[dump.root.machine]
