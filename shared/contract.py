"""What the two sides must agree on: annotation keys, the handler's name, paths and annotations of checkpoint images.

Source: the project's design (contract), go-criu/checkpointctl ``lib/annotations.go`` for ``org.criu.checkpoint.*``,
Podman ``libpod/define/annotations.go``, CRI-O ``internal/annotations/checkpoint.go``.
"""

from __future__ import annotations

from typing import Final, Literal

HANDLER: Final = "nri-restore"
"""Name of the runtime handler and the RuntimeClass."""

# Pod annotations. A per-container form appends ``.<container name>`` and wins over the plain one.
POD_CHECKPOINT: Final = "nri-restore/checkpoint"
POD_ON_FAILURE: Final = "nri-restore/on-failure"
POD_ON_RESTART: Final = "nri-restore/on-restart"
POD_LAZY: Final = "nri-restore/lazy"
POD_TCP: Final = "nri-restore/tcp"
POD_CRIU: Final = "nri-restore/criu"

CRIU_CONFIG: Final = "org.criu.config"
"""Annotation of a container (not of a pod): the file that runc gives CRIU (libcontainer/criu_linux.go)."""

NODE_FACTS: Final = "nri-restore/node-facts"
"""Annotation of a Node: what shared/node_facts.py gathers, as JSON; docs/check.md has its fields."""

ImageFormat = Literal["archive", "layered"]

# Manifest annotations and config labels of checkpoint images.
IMAGE_FORMAT: Final = "io.nri-restore.checkpoint.format"
"""``layered``: base layers, rootfs diff, and one layer with the checkpoint under LAYERED_DIR. Otherwise: archive."""
LAYERED_DIR: Final = ".nri-restore"
"""Directory, relative to the container's root, that holds checkpoint/, config.dump, spec.dump … in a layered image."""
BASE_DIGEST: Final = "io.nri-restore.checkpoint.base.digest"
"""Layered images: manifest digest of the base image the layers come from."""

TRIGGER_CONTAINERD: Final = "org.criu.checkpoint.container.name"
TRIGGER_CRIO: Final = "io.kubernetes.cri-o.annotations.checkpoint.name"
TRIGGER_PODMAN: Final = "io.podman.annotations.checkpoint.runtime.name"
CHECKPOINT_ENGINE: Final = "org.criu.checkpoint.engine.name"
CHECKPOINT_POD_NAME: Final = "org.criu.checkpoint.pod.name"
CHECKPOINT_POD_NAMESPACE: Final = "org.criu.checkpoint.pod.namespace"
CHECKPOINT_BASE_NAME: Final = "org.criu.checkpoint.rootfsImageName"
CHECKPOINT_BASE_USER_REQUESTED: Final = "org.criu.checkpoint.rootfsImageUserRequested"
CHECKPOINT_BASE_ID: Final = "org.criu.checkpoint.rootfsImageID"
CHECKPOINT_RUNTIME: Final = "org.criu.checkpoint.runtime.name"

CHECKPOINT_MARKERS: Final = (IMAGE_FORMAT, TRIGGER_CONTAINERD, TRIGGER_CRIO, TRIGGER_PODMAN)
"""An image with any of these keys (annotation of manifest or index, or config label) is a checkpoint image."""
