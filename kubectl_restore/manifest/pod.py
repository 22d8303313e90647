"""The pod that restores a checkpoint: what must match the dump is kept or set, what must change is changed.

Every change and everything that the checkpoint cannot tell is explained beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from kubectl_restore.check.machine import GO_ARCHITECTURES
from kubectl_restore.manifest.commented import Comments
from kubectl_restore.manifest.quantity import bytes_of, mebibytes
from kubectl_restore.manifest.security import fit_namespaces, fit_security, set_groups
from kubectl_restore.manifest.volumes import fit_volumes
from shared import contract
from shared.criu.dump import Dump
from shared.metadata import Checkpoint

Object = dict[str, Any]

UNKNOWN_IMAGE: Final = "CHECKPOINT-IMAGE"
"""Stands where the image is to be named; no registry takes it, for it is in capitals."""
_ARCH: Final = "kubernetes.io/arch"
_DOLLARS: Final = re.compile(r"\$\$+|\$(?=\()")


@dataclass(frozen=True)
class Wanted:
    """What is restored, and how."""

    checkpoint: Checkpoint
    dump: Dump
    image: str
    """The checkpoint image; empty: not built yet."""
    annotate: bool = False
    """Whether the container keeps its image and an annotation names the checkpoint."""
    runtime_class: str = contract.HANDLER
    has_command: bool = True
    """Whether the image says what to run, as ours do; those of other tools leave it to the pod."""


def bare_pod(checkpoint: Checkpoint, name: str = "") -> Object:
    """A pod of nothing but the checkpointed container, where nobody knows its pod any more."""
    container = _label(checkpoint.container_name) or "restored"
    metadata = {"name": name or f"{_label(checkpoint.pod_name) or container}-restored"}
    base = checkpoint.base
    image = (base.reference if base.digest else None) or base.name or UNKNOWN_IMAGE
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "containers": [{"name": container, "image": image, "command": _command(checkpoint)}],
            "restartPolicy": "Always",
        },
    }


def fit(document: Object, container_name: str, wanted: Wanted, *, known: bool) -> Comments:
    """Changes a pod, or the template of what makes pods, so that its container restores.

    ``known``: the pod is the user's own; else it was made up from the checkpoint (``bare_pod``).
    """
    comments = Comments()
    metadata: Object = document.setdefault("metadata", {})
    pod: Object = document["spec"]
    container = next(each for each in _containers(pod) if each["name"] == container_name)
    _image(metadata, container, wanted, comments)
    _annotations(metadata, container_name, wanted, comments)
    _place(pod, wanted, comments)
    spec = wanted.checkpoint.spec
    fit_namespaces(pod, spec, wanted.dump, comments)
    fit_security(pod, container, spec, comments)
    if (container.get("tty") is True) != spec.terminal:
        container["tty"] = spec.terminal
        comments.add(container, "tty", f"the checkpointed container had {'a' if spec.terminal else 'no'} terminal")
        if spec.terminal:
            container["stdin"] = True
            comments.add(container, "stdin", "whether it read its terminal is not known; attach needs it")
    fit_volumes(pod, container, spec, comments)
    _memory(container, wanted.dump.memory_bytes, comments, known=known)
    _others(pod, container, comments)
    if not known:
        set_groups(pod, spec, comments)
        comments.add(
            pod, "restartPolicy", "not in the checkpoint; a restart restores it again (nri-restore/on-restart: start)"
        )
        comments.add(
            container,
            "",
            "probes, environment, ports, limits and service account are not in the checkpoint: --from-pod and -f "
            "take them from the pod; the process keeps the environment that it had",
        )
    return comments


def _containers(pod: Object) -> list[Object]:
    return [*(pod.get("containers") or []), *(pod.get("initContainers") or [])]


def _image(metadata: Object, container: Object, wanted: Wanted, comments: Comments) -> None:
    image = wanted.image or UNKNOWN_IMAGE
    if wanted.annotate:
        annotations: Object = metadata.setdefault("annotations", {})
        key = f"{contract.POD_CHECKPOINT}.{container['name']}"
        annotations[key] = image
        comments.add(annotations, key, "the checkpoint that the container resumes from; its own image stays")
        if not wanted.image:
            comments.add(annotations, key, "name the image that 'kubectl restore build' made, or give --image")
        return
    container["image"] = image
    command = "; it has the command of the process in it" if wanted.has_command else ""
    comments.add(container, "image", f"the checkpoint image{command}")
    if not wanted.image:
        comments.add(container, "image", "name the image that 'kubectl restore build' made, or give --image")
    for key in ("command", "args"):
        container.pop(key, None)
    if not wanted.has_command:
        container["command"] = _command(wanted.checkpoint)
        comments.add(container, "command", "that of the process, which the image does not have")


def _annotations(metadata: Object, name: str, wanted: Wanted, comments: Comments) -> None:
    annotations: Object = metadata.setdefault("annotations", {})
    annotations.pop(contract.POD_CHECKPOINT, None)
    if not wanted.annotate:
        annotations.pop(f"{contract.POD_CHECKPOINT}.{name}", None)

    def asked(key: str) -> object:
        return annotations.get(f"{key}.{name}", annotations.get(key))

    if wanted.dump.file_locks and "file-locks" not in str(asked(contract.POD_CRIU) or ""):
        key = f"{contract.POD_CRIU}.{name}"
        annotations[key] = "file-locks"
        comments.add(annotations, key, "the processes hold file locks")
    if wanted.dump.sockets_established and asked(contract.POD_TCP) in (None, "refuse"):
        key = f"{contract.POD_TCP}.{name}"
        annotations[key] = "close"
        comments.add(
            annotations,
            key,
            "there are established TCP connections, which end; established keeps those whose other end waits",
        )
    if not annotations:
        del metadata["annotations"]


def _place(pod: Object, wanted: Wanted, comments: Comments) -> None:
    if pod.get("runtimeClassName") != wanted.runtime_class:
        pod["runtimeClassName"] = wanted.runtime_class
        comments.add(pod, "runtimeClassName", f"the RuntimeClass of the handler {contract.HANDLER}, which restores")
    architecture = GO_ARCHITECTURES.get(wanted.dump.root.machine)
    selector: Object = pod.setdefault("nodeSelector", {})
    if architecture and selector.get(_ARCH) != architecture:
        selector[_ARCH] = architecture
        comments.add(selector, _ARCH, "the machine that the memory is of")
    if not selector:
        del pod["nodeSelector"]


def _memory(container: Object, dumped: int, comments: Comments, *, known: bool) -> None:
    resources: Object = container.setdefault("resources", {})
    held = f"the process holds {mebibytes(dumped)} when it resumes"
    limits: Object = resources.get("limits") or {}
    limit = bytes_of(limits["memory"]) if "memory" in limits else None
    if limit is not None and limit < dumped:
        # Page tables and CRIU itself are charged to the same cgroup.
        limits["memory"] = mebibytes(dumped + dumped // 10)
        comments.add(limits, "memory", f"{held}, which was more than the limit")
    if not known:
        resources["requests"] = {"memory": mebibytes(dumped)}
        comments.add(resources["requests"], "memory", held)
    if not resources:
        del container["resources"]


def _others(pod: Object, restored: Object, comments: Comments) -> None:
    for container in _containers(pod):
        if container is restored:
            continue
        init = container in (pod.get("initContainers") or []) and container.get("restartPolicy") != "Always"
        comments.add(
            container, "", "runs again before the restore" if init else "starts afresh: not in this checkpoint"
        )
    if "postStart" in (restored.get("lifecycle") or {}):
        comments.add(restored, "lifecycle", "postStart runs in the restored process's container too")


def _command(checkpoint: Checkpoint) -> list[str]:
    """The process's own; the kubelet would put values in place of ``$(NAME)`` (third_party/forked/golang/expansion)."""
    return [_DOLLARS.sub(lambda found: found[0] * 2, word) for word in checkpoint.spec.args]


def _label(text: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:50].strip("-")
