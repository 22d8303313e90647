"""Brings one file of a node here: streamed from a transfer pod, resumed when the stream breaks, verified at the end."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kubectl_restore.kube.exec import CommandInPodFailed, StreamBroken, output, stream
from kubectl_restore.kube.transfer_pod import CONTAINER, MOUNTED
from shared.errors import RestoreError, Unavailable

if TYPE_CHECKING:
    from kubectl_restore.image.progress import Progress
    from kubectl_restore.kube.transfer_pod import TransferPod

ATTEMPTS: Final = 8
"""Breaks in a row, without a byte in between, before we give up."""
_PAUSE_S: Final = 0.5
_HASH_IDLE_S: Final = 3600.0


def download(pod: TransferPod, name: str, destination: Path, progress: Progress) -> int:
    """Writes the file ``name`` of the pod's directory to ``destination`` (0600, new) and returns its size in bytes.

    The node computes the SHA-256 while the bytes are on their way. Raises RestoreError: NodeFileMissing,
    NodeFileChanged, TransferCorrupt, TransferImageUnfit; Unavailable("TransferBroken").
    """
    inside = f"{MOUNTED}/{name}"
    identity = _identity(pod, inside)
    size = int(identity.split()[0])
    theirs = _Hashing(pod, inside)
    ours = hashlib.sha256()
    with destination.open("xb", buffering=0) as file:
        destination.chmod(0o600)
        for piece in progress.track(name, size, _pieces(pod, inside, identity, size)):
            file.write(piece)
            ours.update(piece)
    digest = theirs.result()
    if _identity(pod, inside) != identity:
        raise _changed(name)
    if ours.hexdigest() != digest:
        raise RestoreError(
            "TransferCorrupt", f"{name} arrived damaged (its SHA-256 is not the one on the node); try again"
        )
    return size


def _pieces(pod: TransferPod, inside: str, identity: str, size: int) -> Iterator[bytes]:
    """The file's bytes, all of them, over as many streams as it takes."""
    done, broken = 0, 0
    while True:
        before = done
        why = "it ended early"
        try:
            command = ["tail", "-c", f"+{done + 1}", inside]
            with closing(stream(pod.connection, pod.namespace, pod.name, CONTAINER, command)) as pieces:
                for piece in pieces:
                    done += len(piece)
                    if done > size:
                        raise _changed(Path(inside).name)
                    yield piece
            if done == size:
                return
        except StreamBroken as error:
            why = str(error)
        except CommandInPodFailed as error:
            raise _unreadable(Path(inside).name, error) from error
        # A command that seems to have succeeded may have lost the end of its output on the way (seen with containerd
        # under load): only the file itself tells whether it became shorter.
        if _identity(pod, inside) != identity:
            raise _changed(Path(inside).name)
        broken = 1 if done > before else broken + 1
        if broken >= ATTEMPTS:
            raise Unavailable(
                "TransferBroken", f"the transfer broke {broken} times in a row at {done} of {size} bytes: {why}"
            )
        time.sleep(_PAUSE_S * broken)


class _Hashing:
    """``sha256sum`` in the pod, beside the transfer.

    A daemon thread, never waited for when the transfer fails: it ends with the pod.
    """

    def __init__(self, pod: TransferPod, inside: str) -> None:
        self._outcome: str | RestoreError = RestoreError("TransferBroken", "the node computed no SHA-256")
        self._thread = threading.Thread(target=self._run, args=(pod, inside), daemon=True)
        self._thread.start()

    def _run(self, pod: TransferPod, inside: str) -> None:
        try:
            self._outcome = _command(pod, inside, ["sha256sum", inside], idle_s=_HASH_IDLE_S).split()[0]
        except RestoreError as error:
            self._outcome = error

    def result(self) -> str:
        self._thread.join()
        if isinstance(self._outcome, RestoreError):
            raise self._outcome
        return self._outcome


def _identity(pod: TransferPod, inside: str) -> str:
    """Size, modification time and inode of the file, as one string."""
    said = _command(pod, inside, ["stat", "-c", "%s %Y %i", inside]).strip()
    if not re.fullmatch(r"\d+ \d+ \d+", said):
        raise RestoreError("TransferImageUnfit", f"the transfer image's stat says {said[:80]!r}; use another image")
    return said


def _command(pod: TransferPod, inside: str, command: list[str], *, idle_s: float = 60) -> str:
    """Output of a command that can be repeated, and is when the connection breaks."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            said = output(pod.connection, pod.namespace, pod.name, CONTAINER, command, idle_s=idle_s)
            if said:
                return said
            raise StreamBroken(f"{command[0]} printed nothing")
        except StreamBroken as error:
            if attempt == ATTEMPTS:
                raise Unavailable("TransferBroken", str(error)) from error
            time.sleep(_PAUSE_S * attempt)
        except CommandInPodFailed as error:
            raise _unreadable(Path(inside).name, error) from error
        except RestoreError as error:
            if error.reason != "ExecFailed":
                raise
            raise RestoreError(
                "TransferImageUnfit",
                f"the transfer image cannot be used: {error}; it needs sleep, stat, tail and sha256sum",
            ) from error
    raise AssertionError("unreachable")


def _unreadable(name: str, error: CommandInPodFailed) -> RestoreError:
    if "No such file" in error.said:
        return RestoreError("NodeFileMissing", f"there is no file {name} on the node; was it removed?")
    return RestoreError("NodeFileUnreadable", f"{name} cannot be read on the node: {error}")


def _changed(name: str) -> RestoreError:
    return RestoreError("NodeFileChanged", f"{name} changed on the node while it was read; take a new checkpoint")
