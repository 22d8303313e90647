"""A short-lived pod that lets us read one directory of a node."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kubectl_restore.kube.connection import path_of
from kubectl_restore.kube.errors import ApiRefused, Forbidden
from kubectl_restore.kube.undisturbed import undisturbed
from shared.errors import RestoreError, Unavailable

if TYPE_CHECKING:
    from kubectl_restore.kube.connection import Connection, Object

IMAGE: Final = "busybox:1.37"
"""Needs ``sleep``, ``stat``, ``tail`` and ``sha256sum``."""
CONTAINER: Final = "transfer"
MOUNTED: Final = "/checkpoints"
MANAGED_BY: Final = "kubectl-restore"
START_S: Final = 120.0
LIFE_S: Final = 3600
_POLL_S: Final = 0.25


@dataclass(frozen=True)
class TransferPod:
    """A running one."""

    connection: Connection
    namespace: str
    name: str


def manifest(name: str, node: str, directory: str, image: str, life_s: int) -> Object:
    """A pod that sees ``directory`` of ``node``, read-only, and nothing else of the node or the cluster.

    It runs as root without capabilities, because the kubelet's archives are root's and 0600. ``life_s``: after that
    many seconds the kubelet ends it, should nobody be left to delete it.
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {
                "app.kubernetes.io/name": "kubectl-restore-transfer",
                "app.kubernetes.io/managed-by": MANAGED_BY,
            },
            "annotations": {"kubectl.kubernetes.io/default-container": CONTAINER},
        },
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": life_s,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": [{"operator": "Exists"}],
            # Ignored where there is no SELinux; with it, container_t may not read the kubelet's files.
            "securityContext": {
                "runAsUser": 0,
                "runAsGroup": 0,
                "seccompProfile": {"type": "RuntimeDefault"},
                "seLinuxOptions": {"type": "spc_t"},
            },
            "containers": [
                {
                    "name": CONTAINER,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", str(life_s)],
                    "resources": {
                        "requests": {"cpu": "10m", "memory": "16Mi"},
                        "limits": {"memory": "64Mi"},
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "checkpoints", "mountPath": MOUNTED, "readOnly": True}],
                }
            ],
            "volumes": [{"name": "checkpoints", "hostPath": {"path": directory, "type": "Directory"}}],
        },
    }


@contextmanager
def transfer_pod(
    connection: Connection,
    node: str,
    directory: str,
    *,
    image: str = IMAGE,
    namespace: str = "",
    life_s: int = LIFE_S,
) -> Iterator[TransferPod]:
    """Runs one and removes it again, whatever ends the block.

    Raises Forbidden, RestoreError: NodeNotFound, NodeDirectoryMissing, TransferImageMissing, TransferPodFailed;
    Unavailable("TransferPodNotStarted") after START_S seconds.
    """
    # Our own name rather than generateName: it can be deleted even when the answer to its creation never came.
    name = f"kubectl-restore-{secrets.token_hex(4)}"
    namespace = namespace or connection.namespace
    wanted = manifest(name, node, directory, image, life_s)
    _check_node(connection, node)
    try:
        _create(connection, namespace, wanted)
        _await_running(connection, namespace, name, node, directory, image)
        yield TransferPod(connection, namespace, name)
    finally:
        _remove(connection, namespace, name)


def _check_node(connection: Connection, node: str) -> None:
    """A pod bound to a node that is not there would only wait; who may not read nodes finds out that way."""
    with suppress(Forbidden):
        if connection.find(path_of("nodes", name=node)) is None:
            raise RestoreError("NodeNotFound", f"there is no node \"{node}\"; 'kubectl get nodes' lists them")


def _create(connection: Connection, namespace: str, wanted: Object) -> None:
    try:
        connection.call("POST", path_of("pods", namespace), wanted)
    except Forbidden as error:
        if error.remedy:
            raise
        raise Forbidden(
            f"the namespace {namespace} does not admit the pod that reads the file from the node ({error}); "
            "choose one that allows hostPath volumes with --transfer-namespace",
            reason="TransferPodRefused",
        ) from error
    except ApiRefused as error:
        if error.status == 404:
            raise RestoreError("NamespaceNotFound", f"there is no namespace {namespace} ({error})") from error
        raise


def _await_running(connection: Connection, namespace: str, name: str, node: str, directory: str, image: str) -> None:
    deadline = time.monotonic() + START_S
    path = path_of("pods", namespace, name)
    seen = "it was never seen"
    while time.monotonic() < deadline:
        pod = connection.find(path)
        if pod is None:
            raise RestoreError("TransferPodFailed", f"the transfer pod {namespace}/{name} was deleted by someone else")
        status = pod.get("status", {})
        phase = status.get("phase", "Pending")
        if phase == "Running":
            return
        if phase in ("Failed", "Succeeded"):
            why = status.get("message") or status.get("reason") or f"it is {phase}"
            raise RestoreError("TransferPodFailed", f"the transfer pod on node {node} ended at once: {why}")
        waiting: Object = next(
            (
                each["state"]["waiting"]
                for each in status.get("containerStatuses", [])
                if "waiting" in each.get("state", {})
            ),
            {},
        )
        if waiting.get("reason") in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"):
            raise RestoreError(
                "TransferImageMissing",
                f"node {node} cannot pull the transfer image {image} ({waiting.get('message') or waiting['reason']}); "
                "name another one with sleep, stat, tail and sha256sum in it: --transfer-image",
            )
        problem = _mount_problem(connection, namespace, name)
        if problem:
            raise RestoreError(
                "NodeDirectoryMissing", f"the directory {directory} cannot be read on node {node}: {problem}"
            )
        seen = waiting.get("message") or waiting.get("reason") or f"it is {phase}"
        time.sleep(_POLL_S)
    raise Unavailable(
        "TransferPodNotStarted",
        f"the transfer pod on node {node} did not start within {START_S:.0f} s ({seen}); "
        f"'kubectl get node {node}' shows whether it is ready",
    )


def _mount_problem(connection: Connection, namespace: str, name: str) -> str:
    """What the kubelet reports of a hostPath that is not there; empty when nothing, or when events may not be read."""
    try:
        events = connection.get(
            path_of("events", namespace), fieldSelector=f"involvedObject.name={name},reason=FailedMount"
        )
    except RestoreError:
        return ""
    messages = [str(each.get("message", "")) for each in events.get("items", [])]
    return next((each.rpartition(" : ")[2] for each in messages if "hostPath" in each), "")


def _remove(connection: Connection, namespace: str, name: str) -> None:
    """Deletes the pod without a grace period; harmless when it never came to be.

    An error here would hide the one that ends the block; the pod's own deadline ends what cannot be deleted.
    A second Ctrl-C waits until it is done.
    """
    with undisturbed(), suppress(RestoreError):
        connection.call("DELETE", path_of("pods", namespace, name), {"gracePeriodSeconds": 0}, timeout_s=15)
