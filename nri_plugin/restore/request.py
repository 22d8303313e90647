"""What the runtime asks for: one container about to be created, as far as a restore is concerned.

Everything here comes from the live request (NRI's PodSandbox and Container), nothing from a checkpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from nri_plugin.logs import Subject
from shared import contract
from shared.errors import Refused, RestoreError
from shared.member_names import quoted
from shared.oci import parse_reference

OnFailure = Literal["fail", "start"]
OnRestart = Literal["restore", "start"]
Tcp = Literal["close", "established", "refuse"]

CRIU_OPTIONS = frozenset({"file-locks"})
"""Options of criu(8) that a pod may switch on: they widen what can be restored, not what it may do."""

KEYS = (
    contract.POD_CHECKPOINT,
    contract.POD_ON_FAILURE,
    contract.POD_ON_RESTART,
    contract.POD_LAZY,
    contract.POD_TCP,
    contract.POD_CRIU,
)
PREFIX = "nri-restore/"

# Annotations containerd itself sets (internal/cri/annotations/annotations.go).
IMAGE_NAME = "io.kubernetes.cri.image-name"
RESTART_COUNT = "io.kubernetes.container.restartCount"
RESTART_DIGITS_MAX = 10
# Annotations CRI-O sets, over any of the pod's (internal/annotations/annotations.go), which it passes on as well: no
# other key of a container's means anything there.
CRIO_IMAGE_ID = "io.kubernetes.cri-o.ImageRef"
CRIO_MOUNT_POINT = "io.kubernetes.cri-o.MountPoint"
IMAGE_ID = re.compile("[0-9a-f]{64}")
# Set by containerd 2.1-2.3 when its own restore takes the container (container_checkpoint_linux.go).
NATIVE_RESTORED = "restored"
NATIVE_IMAGE = "checkpointImage"
NAME_LABEL = "io.kubernetes.container.name"
"""Set by the kubelet (pkg/kubelet/types/labels.go)."""


class PodMessage(Protocol):
    """The part of nri.pkg.api.v1alpha1.PodSandbox used here."""

    id: str
    name: str
    uid: str
    namespace: str
    runtime_handler: str

    @property
    def annotations(self) -> Mapping[str, str]: ...


class ContainerMessage(Protocol):
    """The part of nri.pkg.api.v1alpha1.Container used here."""

    id: str
    name: str

    @property
    def annotations(self) -> Mapping[str, str]: ...

    @property
    def labels(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class RequestMount:
    """One mount of the request; options as in the OCI spec."""

    destination: str
    type: str
    source: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class RestoreRequest:
    """A container under our handler, or one whose pod names a checkpoint for it."""

    container_id: str
    container_name: str
    attempt: int
    pod_id: str
    pod_name: str
    pod_namespace: str
    pod_uid: str
    image: str
    """The container's image as the runtime names it; for a native restore the checkpoint image."""
    checkpoint: str | None
    """Reference from the annotation; None when the container's own image is to be looked at."""
    native: bool
    """The runtime (containerd 2.1-2.3) is restoring by itself; restore-runc takes that restore over."""
    args: tuple[str, ...]
    mounts: tuple[RequestMount, ...]
    cgroups_path: str
    on_failure: OnFailure
    on_restart: OnRestart
    tcp: Tcp
    criu: tuple[str, ...]
    memory_bytes: int | None = None
    """The limit, as the runtime was asked for it."""
    memory_swap_bytes: int | None = None
    """The limit of memory and swap together."""
    rootfs: str = ""
    """Where CRI-O has mounted the root file system; empty where it will be in the bundle."""

    by_default: bool = False
    """Ours only because the handler is the runtime's default: neither the handler nor a checkpoint was asked for."""

    def can_start(self, *, layered: bool) -> bool:
        """Whether something else than a restore can become of it: its own image, ``layered`` or the base, has the
        programs, and the runtime would start them, which it never does where it restores by itself.
        """
        return not self.native and (layered or self.checkpoint is not None)

    @property
    def subject(self) -> Subject:
        """As log lines and Events name it."""
        return Subject(self.pod_namespace, self.pod_name, self.pod_uid, self.container_name, self.container_id)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RestoreRequest:
        values = dict(document)
        values["args"] = tuple(values["args"])
        values["criu"] = tuple(values["criu"])
        values["mounts"] = tuple(
            RequestMount(m["destination"], m["type"], m["source"], tuple(m["options"])) for m in values["mounts"]
        )
        return cls(**values)


def name_of(container: ContainerMessage) -> str:
    """The container's name in the pod; containerd 2.1 calls every container that it restores itself ``containerd``."""
    return container.labels.get(NAME_LABEL) or container.name


def subject_of(pod: PodMessage, container: ContainerMessage) -> Subject:
    """The same for a container whose request may not be one."""
    return Subject(pod.namespace, pod.name, pod.uid, name_of(container), container.id)


def annotation(pod: PodMessage, container: str, key: str) -> str | None:
    """The pod's value of ``key`` for one container: ``<key>.<container>`` wins over ``<key>``."""
    annotations = pod.annotations
    return annotations.get(f"{key}.{container}", annotations.get(key))


def _choice(pod: PodMessage, container: str, key: str, allowed: tuple[str, ...]) -> Any:
    value = annotation(pod, container, key)
    if value is None:
        return allowed[0]
    if value not in allowed:
        raise Refused(
            "AnnotationInvalid", f"the pod's annotation {key} is {quoted(value)}; it can be {', '.join(allowed)}"
        )
    return value


def _check_keys(pod: PodMessage) -> None:
    """A key that nobody knows is a misspelt one, and what it should have kept from happening would happen."""
    if contract.CRIU_CONFIG in pod.annotations:
        # CRI-O passes on what our handler needs there: a file of the pod's choice would have CRIU run programs.
        raise Refused("AnnotationInvalid", f"the annotation {contract.CRIU_CONFIG} is the node's; leave it out")
    for key in pod.annotations:
        known = any(key == each or key.startswith(f"{each}.") for each in KEYS)
        if key.startswith(PREFIX) and not known:
            raise Refused("AnnotationInvalid", f"there is no annotation {quoted(key)}; there are {', '.join(KEYS)}")


def _check_reference(value: str) -> None:
    try:
        parse_reference(value)
    except RestoreError:
        raise Refused(
            "AnnotationInvalid",
            f"the pod's annotation {contract.POD_CHECKPOINT} is {quoted(value)}, which is no image reference; "
            "write it as registry/repository:tag or registry/repository@sha256:…",
        ) from None


def under_handler(pod: PodMessage, handler: str, *, default: bool = False) -> bool:
    """Whether the pod's containers are created through restore-runc; ``default``: those that name no handler too."""
    return pod.runtime_handler == handler or (default and not pod.runtime_handler)


def concerns_us(pod: PodMessage, container: ContainerMessage, handler: str, *, default: bool = False) -> bool:
    """Whether the container is ours to decide on; must stay cheap, it runs for every container of the node."""
    if under_handler(pod, handler, default=default):
        return True
    annotations = pod.annotations
    return contract.POD_CHECKPOINT in annotations or f"{contract.POD_CHECKPOINT}.{name_of(container)}" in annotations


def _crio_image(annotations: Mapping[str, str]) -> str:
    image = annotations.get(CRIO_IMAGE_ID, "")
    return f"sha256:{image}" if IMAGE_ID.fullmatch(image) else image


def request_of(pod: Any, container: Any, handler: str, *, crio: bool = False, default: bool = False) -> RestoreRequest:
    """The request of a container that ``concerns_us``; raises Refused for annotations that cannot be followed."""
    name = name_of(container)
    checkpoint = annotation(pod, name, contract.POD_CHECKPOINT)
    if not under_handler(pod, handler, default=default):
        raise Refused(
            "HandlerMissing",
            f"the pod asks for a checkpoint ({contract.POD_CHECKPOINT}) but does not run under the runtime handler "
            f"{handler}; set runtimeClassName to the RuntimeClass with that handler",
        )
    _check_keys(pod)
    if checkpoint is not None:
        _check_reference(checkpoint)
    lazy = _choice(pod, name, contract.POD_LAZY, ("false", "true"))
    if lazy == "true":
        raise Refused("LazyUnsupported", f"lazy pages are not offered by this version; leave {contract.POD_LAZY} out")
    criu = tuple(option for option in (annotation(pod, name, contract.POD_CRIU) or "").replace(",", " ").split())
    if unknown := [option for option in criu if option not in CRIU_OPTIONS]:
        raise Refused(
            "AnnotationInvalid",
            f"the pod's annotation {contract.POD_CRIU} has {', '.join(map(quoted, unknown[:5]))}; allowed are "
            + ", ".join(sorted(CRIU_OPTIONS)),
        )
    annotations = container.annotations
    native = not crio and annotations.get(NATIVE_RESTORED) == "true" and NATIVE_IMAGE in annotations
    image = _crio_image(annotations) if crio else annotations.get(NATIVE_IMAGE if native else IMAGE_NAME, "")
    restarts = annotations.get(RESTART_COUNT, "0")
    memory = container.linux.resources.memory
    return RestoreRequest(
        container_id=container.id,
        container_name=name,
        attempt=int(restarts) if restarts.isdecimal() and len(restarts) <= RESTART_DIGITS_MAX else 0,
        pod_id=pod.id,
        pod_name=pod.name,
        pod_namespace=pod.namespace,
        pod_uid=pod.uid,
        image=image,
        checkpoint=checkpoint,
        native=native,
        args=tuple(container.args),
        mounts=tuple(
            RequestMount(mount.destination, mount.type, mount.source, tuple(mount.options))
            for mount in container.mounts
        ),
        cgroups_path=container.linux.cgroups_path,
        on_failure=_choice(pod, name, contract.POD_ON_FAILURE, ("fail", "start")),
        on_restart=_choice(pod, name, contract.POD_ON_RESTART, ("restore", "start")),
        tcp=_choice(pod, name, contract.POD_TCP, ("close", "established", "refuse")),
        criu=criu,
        memory_bytes=memory.limit.value if memory.HasField("limit") else None,
        memory_swap_bytes=memory.swap.value if memory.HasField("swap") else None,
        rootfs=annotations.get(CRIO_MOUNT_POINT, "") if crio else "",
        by_default=pod.runtime_handler != handler and checkpoint is None,
    )
