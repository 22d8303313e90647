"""What an engine wrote beside the CRIU images: config.dump, spec.dump, status.dump, dump.log. Untrusted.

Sources: checkpointctl lib/metadata.go (ContainerConfig, shared by containerd and CRI-O; a subset of Podman's
config.dump), containerd internal/cri/server/container_checkpoint_linux.go, CRI-O internal/lib/checkpoint.go,
Podman libpod/container_internal_common.go, checkpointctl internal/container.go (which engine wrote an archive).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from shared.archive import CheckpointFiles
from shared.errors import CheckpointInvalid
from shared.json_object import DOCUMENT_BYTES_MAX, JsonObject, invalid, parse_json
from shared.spec import RuntimeSpec, parse_spec

Engine = Literal["containerd", "CRI-O", "Podman"]

CONFIG: Final = "config.dump"
SPEC: Final = "spec.dump"
STATUS: Final = "status.dump"
INVENTORY: Final = "checkpoint/inventory.img"
ROOTFS_DIFF: Final = "rootfs-diff.tar"
DELETED_FILES: Final = "deleted.files"
LOG_MEMBER: Final[Mapping[Engine, str]] = {
    "containerd": "container.log",
    "CRI-O": "io.kubernetes.cri-o.LogPath",
    "Podman": "ctr.log",
}
_LOGS_OF_CRIU: Final = ("dump.log", "checkpoint/dump.log")

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_REFERENCE: Final = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:/@+\-\[\]]{0,1023}")
_CRIU_VERSION: Final = re.compile(
    rb"^(?:\(\d+\.\d+\) )?Version: (\d+(?:\.\d+){0,3}[0-9A-Za-z.+~-]{0,32}) ", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class BaseImage:
    """The image that the checkpointed container had been started from."""

    name: str | None
    """As the user had named it, with a tag as a rule."""
    reference: str | None
    """As the engine recorded it: ``repo@sha256:…`` (containerd), or a bare image id."""
    digest: str | None
    """``sha256:…`` of the manifest (or index), when the reference has one."""
    config_digest: str | None
    """``sha256:…`` of the image's config, when the engine recorded the image's id instead."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One container's checkpoint; texts that its engine did not record are empty."""

    engine: Engine
    container_id: str
    container_name: str
    pod_name: str
    pod_namespace: str
    pod_uid: str
    base: BaseImage
    runtime: str
    created_at: datetime | None
    checkpointed_at: datetime | None
    spec: RuntimeSpec
    log_member: str | None
    rootfs_diff: str | None
    deleted_files: tuple[str, ...]
    """Absolute paths in the container (CRI-O, Podman; containerd writes whiteouts into the diff)."""
    criu_version: str | None
    """Of the CRIU that made the dump, from its log; None when the archive has no log."""


def read_checkpoint(files: CheckpointFiles) -> Checkpoint:
    """Reads the metadata of a checkpoint of any engine.

    Raises CheckpointInvalid: MetadataMissing naming every missing file, MetadataMalformed naming file and field,
    FileTooLarge, and what reading the archive raises.
    """
    missing = [name for name in (CONFIG, SPEC, INVENTORY) if name not in files]
    if missing:
        raise CheckpointInvalid(
            "MetadataMissing", f"{files.path} is not a container checkpoint: it has no {', no '.join(missing)}"
        )
    spec = parse_spec(files.read(SPEC, DOCUMENT_BYTES_MAX), file=SPEC)
    config = JsonObject.parse(files.read(CONFIG, DOCUMENT_BYTES_MAX), CONFIG)
    engine = _engine(spec)
    if engine == "containerd" and STATUS not in files:
        # containerd writes it last: without it the archive was cut off, however whole the rest looks.
        raise CheckpointInvalid("MetadataMissing", f"{files.path} is not a whole checkpoint: it has no {STATUS}")
    names = _Names.of(spec, config, _labels(files, spec, engine))
    log = LOG_MEMBER[engine]
    return Checkpoint(
        engine=engine,
        container_id=config.text("id"),
        container_name=names.container,
        pod_name=names.pod,
        pod_namespace=names.namespace,
        pod_uid=names.uid,
        base=_base(config),
        runtime=config.text("runtime"),
        created_at=_moment(config, "createdTime"),
        checkpointed_at=_moment(config, "checkpointedTime"),
        spec=spec,
        log_member=log if log in files else None,
        rootfs_diff=ROOTFS_DIFF if ROOTFS_DIFF in files else None,
        deleted_files=_deleted_files(files),
        criu_version=_criu_version(files),
    )


def _engine(spec: RuntimeSpec) -> Engine:
    match spec.annotations.get("io.container.manager"):
        case "libpod":
            return "Podman"
        case "cri-o":
            return "CRI-O"
    return "containerd"


def _labels(files: CheckpointFiles, spec: RuntimeSpec, engine: Engine) -> Mapping[str, str]:
    """The kubelet's labels of the container, which name it and its pod."""
    if engine == "containerd":
        return JsonObject.parse(files.read(STATUS, DOCUMENT_BYTES_MAX), STATUS).text_map("labels")
    if engine == "CRI-O" and (labels := spec.annotations.get("io.kubernetes.cri-o.Labels")):
        field = f"{SPEC}: annotations[io.kubernetes.cri-o.Labels]"
        return JsonObject({"labels": parse_json(labels.encode(), field)}, field).text_map("labels")
    return {}


@dataclass(frozen=True, slots=True)
class _Names:
    container: str
    pod: str
    namespace: str
    uid: str

    @classmethod
    def of(cls, spec: RuntimeSpec, config: JsonObject, labels: Mapping[str, str]) -> _Names:
        def first(containerd_annotation: str, label: str) -> str:
            notes = spec.annotations
            return notes.get(containerd_annotation) or labels.get(label) or notes.get(label) or ""

        return cls(
            container=first("io.kubernetes.cri.container-name", "io.kubernetes.container.name") or config.text("name"),
            pod=first("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"),
            namespace=first("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"),
            uid=first("io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"),
        )


def _base(config: JsonObject) -> BaseImage:
    reference = _reference(config, "rootfsImageRef") or _reference(config, "rootfsImageID")
    name = _reference(config, "rootfsImageName") or _reference(config, "rootfsImage")
    digest = config_digest = None
    if reference:
        repository, at, end = reference.rpartition("@")
        if at and repository and _DIGEST.fullmatch(end):
            digest = end
        elif _DIGEST.fullmatch(reference):
            config_digest = reference
        elif _DIGEST.fullmatch(f"sha256:{reference}"):
            config_digest = f"sha256:{reference}"
    return BaseImage(name, reference, digest, config_digest)


def _reference(config: JsonObject, key: str) -> str | None:
    value = config.text(key)
    if value and not _REFERENCE.fullmatch(value):
        raise config.wrong(key, "is not an image reference")
    return value or None


def _moment(config: JsonObject, key: str) -> datetime | None:
    """RFC 3339 with nanoseconds, cut to microseconds; Go's zero time counts as missing."""
    value = config.text(key)
    try:
        moment = datetime.fromisoformat(value).astimezone(UTC) if value else None
    except (ValueError, OverflowError):
        raise config.wrong(key, "is not a time as 2026-01-31T12:00:00Z") from None
    return moment if moment and moment.year > 1 else None


def _deleted_files(files: CheckpointFiles) -> tuple[str, ...]:
    if DELETED_FILES not in files:
        return ()
    document = parse_json(files.read(DELETED_FILES, 4 * DOCUMENT_BYTES_MAX), DELETED_FILES)
    paths = JsonObject({"paths": document}, DELETED_FILES).texts("paths")
    for path in paths:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if not path.startswith("/") or not parts or ".." in parts or len(path) > 4096:
            raise invalid(DELETED_FILES, ascii(path[:120]), "is not an absolute path without ..")
    return paths


def _criu_version(files: CheckpointFiles) -> str | None:
    """From the first lines of CRIU's log, e.g. ``(00.000132) Version: 4.2.1 (gitid 0)``."""
    for name in _LOGS_OF_CRIU:
        if name in files:
            with files.open(name) as log:
                found = _CRIU_VERSION.search(log.read(64 << 10))
            if found:
                return found[1].decode()
    return None
