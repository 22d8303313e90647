"""SOURCE becomes a file here: the one that is here already, or a downloaded one that is gone afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kubectl_restore.kube.undisturbed import undisturbed
from kubectl_restore.source.names import LocalFile, NodeFile, SourceName
from shared.errors import RestoreError

if TYPE_CHECKING:
    from kubectl_restore.image.progress import Progress
    from kubectl_restore.kube.connection import Connection
    from kubectl_restore.kube.kubelet import KubeletAccess, Taken
    from kubectl_restore.kube.kubelet_refusals import CheckpointFailed

TIMEOUT_S: Final = 300.0


@dataclass(frozen=True)
class Fetching:
    """How to get at what is not here."""

    connect: Callable[[], Connection]
    """Called only for a SOURCE in the cluster."""
    progress: Progress
    folder: Path | None = None
    """Where a download lies while it is used; None: TMPDIR, else ~/.cache (/tmp is memory on many systems)."""
    image: str = ""
    """Of the transfer pod; empty: the default."""
    namespace: str = ""
    """Of the transfer pod; empty: the connection's."""
    timeout_s: float = TIMEOUT_S
    """For taking a checkpoint."""
    access: KubeletAccess | None = None
    note: Callable[[str], None] = field(default=lambda sentence: None)
    """Told what was done: a checkpoint taken."""
    warn: Callable[[str], None] = field(default=lambda sentence: None)
    """Told what is not as it should be: no lock, another way to the kubelet."""


@dataclass(frozen=True)
class Opened:
    path: Path
    node: str = ""
    """Where it came from; empty for a local file."""
    node_path: str = ""
    taken: Taken | None = None
    """The checkpoint, when it was taken for this."""


@contextmanager
def opened(name: SourceName, fetching: Fetching) -> Iterator[Opened]:
    """The checkpoint as a file or directory of this machine; what was downloaded is removed at the end.

    The file on the node stays. Raises what taking, downloading and connecting raise.
    """
    if isinstance(name, LocalFile):
        yield Opened(name.path)
        return
    connection = fetching.connect()
    taken = None
    if not isinstance(name, NodeFile):
        taken = checkpoint(connection, name.pod, name.container, fetching)
        fetching.note(f"checkpoint taken: node/{taken.target.node}:{taken.path}")
        name = NodeFile(taken.target.node, taken.path)
    folder = _folder(fetching.folder)
    try:
        path = folder / name.name
        fetch(connection, name, path, fetching)
        yield Opened(path, name.node, name.path, taken)
    finally:
        with undisturbed():
            shutil.rmtree(folder, ignore_errors=True)


def fetch(connection: Connection, name: NodeFile, destination: Path, fetching: Fetching) -> int:
    """Copies the node's file to ``destination``, which must not exist; returns its size in bytes.

    Nothing is left there when it fails. Raises RestoreError("FileExists") and what ``download`` raises.
    """
    from kubectl_restore.kube.transfer_pod import IMAGE, transfer_pod
    from kubectl_restore.source.download import download

    if destination.exists():
        raise RestoreError("FileExists", f"{destination} exists already; remove it or name another file")
    where = fetching.namespace or connection.namespace
    try:
        with transfer_pod(connection, name.node, name.directory, image=fetching.image or IMAGE, namespace=where) as pod:
            return download(pod, name.name, destination, fetching.progress)
    except BaseException as error:
        destination.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise RestoreError("FileUnwritable", f"cannot write {destination}: {error.strerror or error}") from error
        raise


def checkpoint(connection: Connection, pod: str, container: str, fetching: Fetching) -> Taken:
    """Takes a checkpoint of a running container, alone."""
    from kubectl_restore.kube.kubelet import take
    from kubectl_restore.kube.kubelet_refusals import CheckpointFailed
    from kubectl_restore.kube.lock import one_at_a_time
    from kubectl_restore.kube.pods import find_pod, target

    chosen = target(find_pod(connection, pod), container)
    with one_at_a_time(connection, chosen, fetching.warn):
        try:
            return take(connection, chosen, timeout_s=fetching.timeout_s, access=fetching.access, note=fetching.warn)
        except CheckpointFailed as error:
            raise _explained(connection, chosen.node, error, fetching) from error


def _explained(connection: Connection, node: str, error: CheckpointFailed, fetching: Fetching) -> RestoreError:
    """With what CRIU's log on the node says, where it may be read."""
    from kubectl_restore.kube.criu_log import read_reason
    from kubectl_restore.kube.transfer_pod import IMAGE

    if not error.log:
        return error
    where = fetching.namespace or connection.namespace
    try:
        reason = read_reason(connection, node, error.log, image=fetching.image or IMAGE, namespace=where)
    except RestoreError as unread:
        return RestoreError(error.reason, f"{error} (it cannot be read from here: {unread})")
    return RestoreError(error.reason, f"{error}: {reason}") if reason else error


def _folder(parent: Path | None) -> Path:
    """A new private directory (0700)."""
    if parent is None:
        given = os.environ.get("TMPDIR")
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        parent = Path(given) if given else Path(cache) / "kubectl-restore"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="checkpoint-", dir=parent))
    except OSError as error:
        raise RestoreError(
            "FolderUnwritable", f"cannot make a folder for the download in {parent}: {error.strerror}; set TMPDIR"
        ) from error
