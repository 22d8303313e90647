"""The image config and the manifest annotations of a checkpoint image.

The CRI acts on all of the base image's config (Env, WorkingDir, Volumes, StopSignal, Labels), so it is kept; Cmd and
User come from the dump: a runtime refuses an image without a command, and the kubelet checks runAsNonRoot against a
numeric User. Sources: image-spec config.md and annotations.md, checkpointctl ``internal/oci_image_build.go``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from shared import contract
from shared.contract import ImageFormat
from shared.metadata import Checkpoint
from shared.oci import Platform

BASE_NAME: Final = "org.opencontainers.image.base.name"
BASE_MANIFEST: Final = "org.opencontainers.image.base.digest"
CREATED: Final = "org.opencontainers.image.created"

_TRIGGERS: Final = (contract.TRIGGER_CONTAINERD, contract.TRIGGER_CRIO, contract.TRIGGER_PODMAN)
_PER_POD: Final = ("KUBERNETES_SERVICE_", "KUBERNETES_PORT")
_SERVICE_SUFFIXES: Final = ("_SERVICE_HOST", "_SERVICE_PORT", "_PORT", "_TCP", "_UDP", "_SCTP", "_PROTO", "_ADDR")


def image_config(
    checkpoint: Checkpoint,
    image_format: ImageFormat,
    *,
    base: Mapping[str, Any] | None,
    platform: Platform,
    created: datetime,
    diff_ids: Sequence[str],
    created_by: Sequence[str],
    kept_history: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """``base`` is the base image's config document; without one the dump's env and cwd must serve."""
    moment = rfc3339(created)
    return {
        "created": moment,
        **platform.as_json(),
        "config": _container_config(checkpoint, image_format, base),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [*map(dict, kept_history), *({"created": moment, "created_by": line} for line in created_by)],
    }


def manifest_annotations(
    checkpoint: Checkpoint, image_format: ImageFormat, *, created: datetime, base_digest: str | None
) -> dict[str, str]:
    """What tells people and runtimes that, and of what, this is a checkpoint.

    The keys that make containerd, CRI-O and Podman try a restore of their own are in the archive format only: they
    expect the checkpoint's files at the image's root.
    """
    base = checkpoint.base
    annotations = {
        contract.IMAGE_FORMAT: image_format,
        CREATED: rfc3339(created),
        contract.CHECKPOINT_ENGINE: checkpoint.engine,
        contract.CHECKPOINT_POD_NAME: checkpoint.pod_name,
        contract.CHECKPOINT_POD_NAMESPACE: checkpoint.pod_namespace,
        contract.CHECKPOINT_BASE_NAME: base.name,
        contract.CHECKPOINT_BASE_USER_REQUESTED: base.name,
        contract.CHECKPOINT_BASE_ID: base.reference,
        contract.CHECKPOINT_RUNTIME: checkpoint.runtime,
        BASE_NAME: base.name,
        BASE_MANIFEST: base_digest or base.digest,
    }
    if image_format == "layered":
        annotations[contract.BASE_DIGEST] = base_digest
    else:
        annotations[contract.TRIGGER_CONTAINERD] = checkpoint.container_name
        annotations[contract.TRIGGER_CRIO] = checkpoint.container_name
        annotations[contract.TRIGGER_PODMAN] = _podman_runtime(checkpoint.runtime)
    return {key: value for key, value in annotations.items() if value}


def rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _container_config(
    checkpoint: Checkpoint, image_format: ImageFormat, base: Mapping[str, Any] | None
) -> dict[str, Any]:
    spec = checkpoint.spec
    if base is None:
        config: dict[str, Any] = {"Env": [line for line in spec.env if not _is_the_pods_own(line)]}
        if spec.cwd:
            config["WorkingDir"] = spec.cwd
    else:
        section = base.get("config")
        config = dict(section) if isinstance(section, dict) else {}
    for key in ("Entrypoint", "ArgsEscaped", "OnBuild"):
        config.pop(key, None)
    labels = config.get("Labels")
    kept = {key: value for key, value in labels.items() if key not in _TRIGGERS} if isinstance(labels, dict) else {}
    return {
        **config,
        "Cmd": list(spec.args),
        "User": f"{spec.uid}:{spec.gid}",
        "Labels": {**kept, contract.IMAGE_FORMAT: image_format},
    }


def _is_the_pods_own(line: str) -> bool:
    """Variables that the kubelet makes anew for every pod: its name and the services around it."""
    name = line.partition("=")[0]
    return name == "HOSTNAME" or name.startswith(_PER_POD) or (name.isupper() and name.endswith(_SERVICE_SUFFIXES))


def _podman_runtime(runtime: str) -> str:
    """Podman compares this with its own runtime's name: containerd's shim ``io.containerd.runc.v2`` runs ``runc``."""
    return next((name for name in ("crun", "runc") if name in runtime), runtime) or "runc"
