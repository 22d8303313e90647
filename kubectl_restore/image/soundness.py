"""Whether a dump may become an image at all: whole and consistent, and of which machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.archive import CheckpointFiles
from shared.criu.images import ImageDirectory
from shared.criu.mounts import read_mounts
from shared.criu.structure import check_structure
from shared.criu.tasks import Machine, read_tasks
from shared.criu.tmpfs import read_tmpfs

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
    """The machine's name as OCI has it; raises CheckpointInvalid for a dump that is damaged or incomplete."""
    check_structure(files)
    images = ImageDirectory(files, "checkpoint")
    tasks = read_tasks(images)
    read_tmpfs(files, read_mounts(images, tuple(dict.fromkeys(task.ids.mnt_ns for task in tasks if task.alive))))
    return _ARCHITECTURES[tasks[0].machine]
