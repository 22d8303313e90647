"""One checkpoint at a time per container: a Lease that is held while the kubelet works, and renewed.

Two at once would freeze the container twice and, with containerd, delete each other's working files
(internal/cri/server/container_checkpoint_linux.go removes ``ctrd-checkpoint`` first). A lease whose holder died ends by
itself after LIFE_S.
"""

from __future__ import annotations

import datetime
import getpass
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from kubectl_restore.kube.connection import MERGE, path_of
from kubectl_restore.kube.errors import ApiRefused, Forbidden
from kubectl_restore.kube.undisturbed import undisturbed
from shared.errors import RestoreError, Unavailable

if TYPE_CHECKING:
    from kubectl_restore.kube.connection import Connection, Object
    from kubectl_restore.kube.pods import Target

GROUP: Final = "coordination.k8s.io"
LIFE_S: Final = 60
_RENEW_S: Final = 20.0


def lease_name(target: Target) -> str:
    """One name for each container of each pod: 36 characters of UID and up to 63 of the container's name."""
    return f"checkpoint-{target.uid}-{target.container}"


@contextmanager
def one_at_a_time(
    connection: Connection, target: Target, note: Callable[[str], None] = lambda sentence: None
) -> Iterator[None]:
    """Holds the lock; raises Unavailable("CheckpointInProgress") with its holder.

    Where leases may not be created the checkpoint goes on unlocked, and ``note`` is told.
    """
    try:
        lease = _acquire(connection, target)
    except Forbidden as error:
        note(f"no lock against a second checkpoint at the same time: {error}")
        yield
        return
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(connection, lease, ended), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        with undisturbed():
            ended.set()
            renewing.join()
            _release(connection, target, lease)


def _acquire(connection: Connection, target: Target) -> Object:
    name, holder = lease_name(target), _holder()
    wanted: Object = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/managed-by": "kubectl-restore"},
            "annotations": {"nri-restore/pod": target.pod, "nri-restore/container": target.container},
        },
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": LIFE_S, "acquireTime": _now(), "renewTime": _now()},
    }
    path = path_of("leases", target.namespace, group=GROUP)
    for _ in range(3):
        try:
            return connection.call("POST", path, wanted)
        except ApiRefused as error:
            if error.status != 409:
                raise
        present = connection.find(f"{path}/{name}")
        if present is None:
            continue
        if not _expired(present):
            raise _held(target, present)
        with suppress(ApiRefused):
            taken = {**wanted, "metadata": {**wanted["metadata"], "resourceVersion": _version(present)}}
            return connection.call("PUT", f"{path}/{name}", taken)
    raise Unavailable("CheckpointInProgress", f"{target.called} is being checkpointed by others; try again later")


def _held(target: Target, lease: Object) -> RestoreError:
    spec = lease["spec"]
    since = str(spec.get("acquireTime", "")).partition(".")[0]
    return Unavailable(
        "CheckpointInProgress",
        f"{target.called} is being checkpointed by {spec.get('holderIdentity', 'someone')} since {since}Z; wait until "
        f"that is done (the lock, lease {target.namespace}/{lease['metadata']['name']}, "
        f"ends by itself {LIFE_S} s after its holder)",
    )


def _expired(lease: Object) -> bool:
    spec = lease.get("spec", {})
    try:
        renewed = datetime.datetime.fromisoformat(spec["renewTime"])
        life = datetime.timedelta(seconds=int(spec["leaseDurationSeconds"]))
        return renewed + life < datetime.datetime.now(datetime.UTC)
    except (KeyError, TypeError, ValueError, OverflowError):
        return True


def _renew(connection: Connection, lease: Object, ended: threading.Event) -> None:
    path = path_of("leases", lease["metadata"]["namespace"], lease["metadata"]["name"], group=GROUP)
    while not ended.wait(_RENEW_S):
        # A renewal that fails is made good by the next one; LIFE_S is three of them.
        with suppress(RestoreError):
            connection.call("PATCH", path, {"spec": {"renewTime": _now()}}, content_type=MERGE, timeout_s=15)


def _release(connection: Connection, target: Target, lease: Object) -> None:
    """Deletes our lease and no one else's; one that cannot be deleted ends by itself."""
    path = path_of("leases", target.namespace, lease["metadata"]["name"], group=GROUP)
    with suppress(RestoreError):
        connection.call("DELETE", path, {"preconditions": {"uid": lease["metadata"]["uid"]}}, timeout_s=15)


def _version(lease: Object) -> str:
    return str(lease["metadata"]["resourceVersion"])


def _holder() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} (process {os.getpid()})"


def _now() -> str:
    """MicroTime (k8s.io/apimachinery pkg/apis/meta/v1/micro_time.go)."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
