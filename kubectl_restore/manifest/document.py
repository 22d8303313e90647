"""A pod's manifest as its owner keeps it: one document of a YAML or JSON file, or of standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import yaml

from shared.errors import RestoreError

BYTES_MAX: Final = 4 << 20
"""More than an API server takes (3 MiB, k8s.io/apiserver pkg/server/config.go, MaxRequestBodyBytes)."""


def read_document(name: str) -> Any:
    """The file's only document; ``-`` is standard input. Raises RestoreError("PodManifestInvalid")."""
    try:
        content = sys.stdin.buffer.read(BYTES_MAX + 1) if name == "-" else _read(Path(name))
    except OSError as error:
        raise RestoreError("PodManifestInvalid", f"cannot read the manifest {name}: {error.strerror}") from error
    if len(content) > BYTES_MAX:
        raise RestoreError("PodManifestInvalid", f"{name} has more than {BYTES_MAX >> 20} MiB; give one pod")
    try:
        documents = [each for each in yaml.safe_load_all(content) if each is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RestoreError("PodManifestInvalid", f"{name} is not YAML: {' '.join(str(error).split())}") from error
    if len(documents) != 1:
        raise RestoreError("PodManifestInvalid", f"{name} has {len(documents)} documents; give one pod")
    return documents[0]


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(BYTES_MAX + 1)
