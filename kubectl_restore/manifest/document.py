"""A pod's manifest as its owner keeps it: one document of a YAML or JSON file, or of standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import yaml

from shared.errors import RestoreError

BYTES_MAX: Final = 4 << 20
"""More than an API server takes (3 MiB, k8s.io/apiserver pkg/server/config.go, MaxRequestBodyBytes)."""

_CONTEXT: Final[dict[str, Any]] = {"capabilities": {"add": [str], "drop": [str]}, "seccompProfile": {"type": str}}
_CONTAINER: Final[dict[str, Any]] = {
    "name": str,
    "command": [str],
    "args": [str],
    "env": [{"name": str}],
    "lifecycle": {},
    "resources": {"limits": {}, "requests": {}},
    "securityContext": _CONTEXT,
    "volumeDevices": [{"name": str}],
    "volumeMounts": [{"name": str, "mountPath": str}],
}
_METADATA: Final[dict[str, Any]] = {"name": str, "namespace": str, "labels": {}, "annotations": {}}
_POD: Final[dict[str, Any]] = {
    "metadata": _METADATA,
    "spec": {
        "containers": [_CONTAINER],
        "initContainers": [_CONTAINER],
        "nodeSelector": {},
        "securityContext": _CONTEXT,
        "tolerations": [{}],
        "volumes": [{"name": str}],
    },
}
_WORKLOAD: Final[dict[str, Any]] = {"metadata": _METADATA, "spec": {"replicas": int, "template": _POD}}
_CRON_JOB: Final[dict[str, Any]] = {"metadata": _METADATA, "spec": {"jobTemplate": {"spec": {"template": _POD}}}}
"""Only what is read here (k8s.io/api core/v1, apps/v1, batch/v1); elements of a list that can have a name need it."""
_CALLED: Final[dict[type, str]] = {dict: "a mapping", list: "a list", str: "a string; quote it", int: "a number"}


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
    document = documents[0]
    if isinstance(document, dict) and isinstance(kind := document.get("kind"), str):
        _check(document, {"Pod": _POD, "CronJob": _CRON_JOB}.get(kind, _WORKLOAD), "")
    return document


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(BYTES_MAX + 1)


def _check(value: Any, shape: Any, where: str) -> None:
    """Takes out what is null, which means the same as nothing."""
    kind: Any = shape if isinstance(shape, type) else type(shape)
    if not isinstance(value, kind):
        raise RestoreError("PodManifestInvalid", f"the manifest's {where} is {value!r:.40}, not {_CALLED[kind]}")
    if isinstance(shape, list):
        for number, each in enumerate(value):
            _check(each, shape[0], f"{where}[{number}]")
            if isinstance(each, dict) and "name" in shape[0] and not each.get("name"):
                raise RestoreError("PodManifestInvalid", f"the manifest's {where}[{number}] has no name")
    elif isinstance(shape, dict):
        for key in [key for key, content in value.items() if content is None]:
            del value[key]
        for key in shape.keys() & value.keys():
            _check(value[key], shape[key], f"{where}.{key}".removeprefix("."))
