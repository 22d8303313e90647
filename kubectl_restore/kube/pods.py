"""Which container of which pod is meant, and where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kubectl_restore.kube.connection import path_of
from kubectl_restore.kube.errors import ApiRefused
from shared.errors import RestoreError

if TYPE_CHECKING:
    from kubectl_restore.kube.connection import Connection, Object

DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
"""Annotation that says which container kubectl means without -c (k8s.io/kubectl pkg/cmd/util/podcmd)."""


@dataclass(frozen=True)
class Target:
    """A running container."""

    namespace: str
    pod: str
    uid: str
    container: str
    node: str
    host_ip: str
    """Of the node, as the pod's status has it; empty when it has none."""

    @property
    def called(self) -> str:
        return f"container {self.container} of pod {self.namespace}/{self.pod}"


def pod_name(text: str) -> str:
    """``NAME``, ``pod/NAME``, ``pods/NAME`` or ``po/NAME``; raises RestoreError("PodNameInvalid")."""
    kind, slash, name = text.rpartition("/")
    if (slash and kind.lower() not in ("pod", "pods", "po")) or not name:
        raise RestoreError("PodNameInvalid", f"{text} is not a pod; write NAME or pod/NAME")
    return name


def find_pod(connection: Connection, name: str) -> Object:
    """The pod in the connection's namespace; raises RestoreError("PodNotFound")."""
    try:
        return connection.get(path_of("pods", connection.namespace, name))
    except ApiRefused as error:
        if error.status != 404:
            raise
        raise RestoreError(
            "PodNotFound",
            f'there is no pod "{name}" in namespace {connection.namespace}; '
            "'kubectl get pods' lists them, -n chooses another namespace",
        ) from error


def target(pod: Object, container: str = "") -> Target:
    """The container meant and where it runs.

    Raises RestoreError: PodNotRunning, ContainerNotFound, ContainerNotRunning, ContainerAmbiguous.
    """
    metadata, status = pod["metadata"], pod.get("status", {})
    namespace, name = metadata["namespace"], metadata["name"]
    node = pod["spec"].get("nodeName", "")
    phase = status.get("phase", "Unknown")
    if metadata.get("deletionTimestamp"):
        raise RestoreError("PodNotRunning", f"pod {namespace}/{name} is being deleted; choose one that stays")
    chosen = container or _default(pod)
    _known(pod, chosen)
    if not node or phase != "Running":
        place = f"is {phase}" if node else "is not yet on any node"
        raise RestoreError(
            "PodNotRunning", f"pod {namespace}/{name} {place}; only a running container can be checkpointed"
        )
    states = [each.get("state") or {} for each in _statuses(status) if each["name"] == chosen]
    if states and "running" not in states[0]:
        how = next(iter(states[0]), "waiting")
        why = (states[0].get(how) or {}).get("reason", "")
        raise RestoreError(
            "ContainerNotRunning",
            f"container {chosen} of pod {namespace}/{name} is {how}{f' ({why})' if why else ''}; "
            "only a running one can be checkpointed",
        )
    return Target(namespace, name, metadata.get("uid", ""), chosen, node, status.get("hostIP", ""))


def containers(pod: Object) -> list[str]:
    """Names of the pod's containers, sidecars after the others; init containers that run to their end are left out."""
    spec = pod["spec"]
    sidecars = [each for each in spec.get("initContainers") or [] if each.get("restartPolicy") == "Always"]
    return [each["name"] for each in [*spec["containers"], *sidecars]]


def _default(pod: Object) -> str:
    names = [each["name"] for each in pod["spec"]["containers"]]
    annotated = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER, "")
    if annotated in containers(pod):
        return str(annotated)
    if len(names) == 1:
        return str(names[0])
    raise RestoreError(
        "ContainerAmbiguous",
        f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']} has several containers; "
        f"choose one with -c: {', '.join(containers(pod))}",
    )


def _known(pod: Object, name: str) -> None:
    spec = pod["spec"]
    kinds = ("containers", "initContainers", "ephemeralContainers")
    if name not in {each["name"] for kind in kinds for each in spec.get(kind) or []}:
        raise RestoreError(
            "ContainerNotFound",
            f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']} has no container {name}; "
            f"there are: {', '.join(containers(pod))}",
        )


def _statuses(status: Object) -> list[Object]:
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    return [each for kind in kinds for each in status.get(kind) or []]
