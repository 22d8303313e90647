"""A backend of the stub API server without any real node: pods run at once, checkpoints are files in a folder.

``folder`` is the root directory of every node: ``/var/lib/kubelet/checkpoints`` lies below it, and so does whatever a
pod mounts with hostPath. Commands executed in a pod really run, on this machine, with mount paths replaced.
"""

from __future__ import annotations

import datetime
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.kube_backend import Answer, HangUp, Streams
from tests.support.kube_objects import ApiFailure, Object, now

if TYPE_CHECKING:
    from tests.support.kube_api import KubeApi

CHECKPOINTS: Final = "/var/lib/kubelet/checkpoints"
_PIECE_BYTES: Final = 32 << 10
"""As kubelets send exec output (io.Copy's buffer)."""


@dataclass
class MemoryNodes:
    folder: Path
    content: Callable[[str, str, str], bytes] = lambda namespace, pod, container: b"checkpoint of " + pod.encode()
    """What a checkpoint of (namespace, pod, container) contains."""
    answers: list[Answer | None] = field(default_factory=list)
    """For each checkpoint in turn: what the kubelet answers instead (None: takes it)."""
    checkpoint_s: float = 0
    """How long taking one lasts."""
    start_s: float = 0
    """How long a new pod is Pending."""
    missing_images: set[str] = field(default_factory=set)
    spoilt: tuple[str, ...] = ("tail",)
    """Programs whose output the next faults are about."""
    drop_after: list[int] = field(default_factory=list)
    """For each exec in turn that would print more: hang up after this many bytes of output."""
    cut_after: list[int] = field(default_factory=list)
    """For each exec in turn that would print more: lose the rest, and report success."""
    damage: int | None = None
    """Number of an exec's output byte that is turned over."""
    vanish: bool = False
    """Whether files are gone before anything is read."""
    execs: list[list[str]] = field(default_factory=list)
    on_output: Callable[[int], None] = lambda sent: None
    """Called with the number of bytes an exec has sent so far."""

    def attach(self, api: KubeApi) -> None:
        self.api = api
        self._lock = threading.Lock()
        (self.folder / CHECKPOINTS.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def path(self, inside: str) -> Path:
        """A path of the node as seen from here."""
        return self.folder / inside.lstrip("/")

    def close(self) -> None:
        """Threads here end by themselves."""

    # ---- pods ----

    def pod_created(self, pod: Object) -> None:
        threading.Thread(target=self._start, args=(pod,), daemon=True).start()

    def _start(self, pod: Object) -> None:
        time.sleep(self.start_s)
        metadata, spec = pod["metadata"], pod["spec"]
        names = [each["name"] for each in spec["containers"]]
        wanting = next((each for each in spec["containers"] if each["image"] in self.missing_images), None)
        hosts = [each["hostPath"] for each in spec.get("volumes", []) if "hostPath" in each]
        absent = next((each["path"] for each in hosts if not self.path(each["path"]).is_dir()), None)
        if absent:
            self.api.add_event(
                pod,
                "FailedMount",
                'MountVolume.SetUp failed for volume "checkpoints" : '
                f"hostPath type check failed: {absent} is not a directory",
            )
            waiting = {"waiting": {"reason": "ContainerCreating"}}
            status = {"phase": "Pending", "containerStatuses": [{"name": each, "state": waiting} for each in names]}
        elif wanting:
            waiting = {
                "waiting": {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{wanting["image"]}"'}
            }
            status = {"phase": "Pending", "containerStatuses": [{"name": each, "state": waiting} for each in names]}
        else:
            running = [
                {"name": each, "ready": True, "restartCount": 0, "state": {"running": {"startedAt": now()}}}
                for each in names
            ]
            status = {
                "phase": "Running",
                "hostIP": self.api.address,
                "podIP": "10.244.0.9",
                "startTime": now(),
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": running,
            }
        self.api.set_pod_status(metadata["namespace"], metadata["name"], status)

    def pod_deleted(self, pod: Object, grace_s: int) -> None:
        self.api.forget_pod(pod["metadata"]["namespace"], pod["metadata"]["name"])

    # ---- checkpoints ----

    def checkpoint(self, node: str, namespace: str, pod: str, container: str, timeout: str) -> Answer:
        try:
            found = self.api.pod(pod, namespace)
        except ApiFailure:
            return Answer(404, "pod does not exist")
        kinds = ("containers", "initContainers", "ephemeralContainers")
        if found["spec"]["nodeName"] != node:
            return Answer(404, "pod does not exist")
        if container not in {each["name"] for kind in kinds for each in found["spec"].get(kind, [])}:
            return Answer(404, f"container {container} does not exist")
        with self._lock:
            programmed = self.answers.pop(0) if self.answers else None
        if programmed:
            time.sleep(programmed.delay_s)
            return programmed
        time.sleep(self.checkpoint_s)
        taken = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        path = f"{CHECKPOINTS}/checkpoint-{pod}_{namespace}-{container}-{taken}.tar"
        self.path(path).write_bytes(self.content(namespace, pod, container))
        return Answer(200, {"items": [path]})

    # ---- exec ----

    def exec(self, pod: Object, container: str, command: list[str], streams: Streams) -> int:
        with self._lock:
            self.execs.append(command)
        spec = next(each for each in pod["spec"]["containers"] if each["name"] == container)
        volumes = {each["name"]: each.get("hostPath", {}).get("path") for each in pod["spec"].get("volumes", [])}
        words = command
        for mount in spec.get("volumeMounts", []):
            if source := volumes.get(mount["name"]):
                words = [word.replace(mount["mountPath"], str(self.path(source))) for word in words]
                if self.vanish:
                    for each in self.path(source).iterdir():
                        each.unlink()
        stdin = subprocess.PIPE if streams.stdin else subprocess.DEVNULL
        with subprocess.Popen(words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            assert child.stdout and child.stderr
            if streams.stdin:
                threading.Thread(target=_feed, args=(child, streams.stdin), daemon=True).start()
            try:
                self._pass_on(child.stdout, streams, spoil=command[0] in self.spoilt)
            except BaseException:
                child.kill()
                raise
            if problem := child.stderr.read():
                streams.stderr(problem)
            return child.wait()

    def _pass_on(self, output: object, streams: Streams, *, spoil: bool) -> None:
        sent = 0
        while piece := output.read1(_PIECE_BYTES):  # type: ignore[attr-defined]
            with self._lock:
                limit = self.drop_after[0] if spoil and self.drop_after else None
            if limit is not None and sent + len(piece) > limit:
                with self._lock:
                    self.drop_after.pop(0)
                streams.stdout(piece[: limit - sent])
                raise HangUp
            with self._lock:
                cut = self.cut_after[0] if spoil and self.cut_after else None
            if cut is not None and sent + len(piece) > cut:
                with self._lock:
                    self.cut_after.pop(0)
                streams.stdout(piece[: cut - sent])
                while output.read1(_PIECE_BYTES):  # type: ignore[attr-defined]
                    continue
                return
            if spoil and self.damage is not None and sent <= self.damage < sent + len(piece):
                spot = self.damage - sent
                piece = piece[:spot] + bytes([piece[spot] ^ 0xFF]) + piece[spot + 1 :]
            streams.stdout(piece)
            sent += len(piece)
            if spoil:
                self.on_output(sent)

    def log(self, pod: Object, container: str, *, follow: bool, previous: bool) -> Iterator[bytes]:
        yield b"1\n2\n3\n"


def _feed(child: subprocess.Popen[bytes], stdin: Callable[[], bytes | None]) -> None:
    assert child.stdin
    try:
        while (piece := stdin()) is not None:
            child.stdin.write(piece)
            child.stdin.flush()
    finally:
        child.stdin.close()
