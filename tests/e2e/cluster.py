"""Real nodes behind the stub API server: its pods are made, executed in and checkpointed through the CRI of test nodes.

``with KubeApi(RealNodes({"node-1": node})) as api`` is a cluster whose kubelets are this module: pod specs become
sandboxes and containers, statuses and events are worded as the kubelet words them, containers that end are started
again after a back-off, ``runtimeClassName`` names the handler.
"""

from __future__ import annotations

import datetime
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tests.e2e.node.cri import CriError
from tests.e2e.node.kubelet import RUNNING, Container
from tests.e2e.node.node import Node
from tests.e2e.pod_worker import PodWorker, rpc_error
from tests.support.kube_backend import Answer, Streams
from tests.support.kube_objects import RESOURCES, Object

if TYPE_CHECKING:
    from tests.support.kube_api import KubeApi

CHECKPOINTS: Final = "/var/lib/kubelet/checkpoints"
_PERIOD_S: Final = 0.1
_PIECE_BYTES: Final = 32 << 10


NODES: Final = next(each for each in RESOURCES if each.kind == "Node")


class RealNodes:
    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = dict(nodes)
        self._pods: dict[tuple[str, str], PodWorker] = {}
        self._lock = threading.Lock()

    def attach(self, api: KubeApi) -> None:
        self.api = api
        for known in api.objects.find(NODES):
            api.objects.remove(NODES, "", known["metadata"]["name"])
        for name, node in self.nodes.items():
            version = node.cri.version()
            api.add_node(name, runtime=f"{version.runtime_name}://{version.runtime_version.removeprefix('v')}")
            node.path(CHECKPOINTS).mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """Removes every pod, and the checkpoints."""
        with self._lock:
            running = list(self._pods.values())
        for each in running:
            each.delete(0)
        for each in running:
            each.join()
        for node in self.nodes.values():
            for archive in node.path(CHECKPOINTS).glob("checkpoint-*.tar"):
                archive.unlink()
            node.path(CHECKPOINTS).rmdir()

    def container(self, pod: str, container: str = "", namespace: str = "default") -> Container:
        """The newest attempt of a container, for looking at it through the CRI."""
        return self._pods[namespace, pod].container(container)

    # ---- pods ----

    def pod_created(self, pod: Object) -> None:
        metadata = pod["metadata"]
        running = PodWorker(self, self.nodes[pod["spec"]["nodeName"]], pod)
        with self._lock:
            self._pods[metadata["namespace"], metadata["name"]] = running
        running.start()

    def pod_deleted(self, pod: Object, grace_s: int) -> None:
        with self._lock:
            running = self._pods.get((pod["metadata"]["namespace"], pod["metadata"]["name"]))
        if running is None:
            self.api.forget_pod(pod["metadata"]["namespace"], pod["metadata"]["name"])
        else:
            running.delete(grace_s)

    def ended(self, running: PodWorker) -> None:
        metadata = running.object["metadata"]
        with self._lock:
            self._pods.pop((metadata["namespace"], metadata["name"]), None)
        self.api.forget_pod(metadata["namespace"], metadata["name"])

    # ---- what a kubelet is asked ----

    def checkpoint(self, node: str, namespace: str, pod: str, container: str, timeout: str) -> Answer:
        with self._lock:
            running = self._pods.get((namespace, pod))
        if running is None or running.node is not self.nodes[node]:
            return Answer(404, "pod does not exist")
        if container not in running.names:
            return Answer(404, f"container {container} does not exist")
        taken = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        location = f"{CHECKPOINTS}/checkpoint-{pod}_{namespace}-{container}-{taken}.tar"
        # The kubelet raises what is less than its runtimeRequestTimeout.
        limit = max(float(timeout or 0), 120.0)
        try:
            attempt = running.container(container)
            with running.checkpointing:
                running.node.cri.checkpoint_container(attempt.id, location, deadline_s=limit)
        except CriError as error:
            return Answer(500, f"checkpointing of {namespace}/{pod}/{container} failed ({rpc_error(error)})")
        return Answer(200, {"items": [location]})

    def exec(self, pod: Object, container: str, command: list[str], streams: Streams) -> int:
        """Through containerd's own task exec: ExecSync keeps the whole output in memory, 16 MiB at most."""
        attempt = self.container(pod["metadata"]["name"], container, pod["metadata"]["namespace"])
        node = attempt.pod.node
        words = [str(node.folder / "enter"), "setpriv", "--pdeathsig", "KILL", "ctr", "--namespace", "k8s.io"]
        words += ["tasks", "exec", "--exec-id", f"stub-{uuid.uuid4().hex[:12]}", attempt.id, *command]
        stdin = subprocess.PIPE if streams.stdin else subprocess.DEVNULL
        with subprocess.Popen(words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            assert child.stdout and child.stderr
            errors = threading.Thread(target=_pump, args=(child.stderr, streams.stderr), daemon=True)
            errors.start()
            if streams.stdin:
                threading.Thread(target=_feed, args=(child, streams.stdin), daemon=True).start()
            try:
                while piece := child.stdout.read1(_PIECE_BYTES):  # type: ignore[attr-defined]
                    streams.stdout(piece)
            except BaseException:
                child.kill()
                raise
            errors.join(5)
            return child.wait()

    def log(self, pod: Object, container: str, *, follow: bool, previous: bool) -> Iterator[bytes]:
        attempt = self.container(pod["metadata"]["name"], container, pod["metadata"]["namespace"])
        sent = 0
        while True:
            lines = attempt.log()
            for line in lines[sent:]:
                yield (line.text + ("" if line.partial else "\n")).encode()
            sent = len(lines)
            if not follow or attempt.state != RUNNING:
                return
            time.sleep(_PERIOD_S)


def _pump(source: Any, sink: Callable[[bytes], None]) -> None:
    with suppress(OSError):
        while piece := source.read1(_PIECE_BYTES):
            sink(piece)


def _feed(child: subprocess.Popen[bytes], stdin: Callable[[], bytes | None]) -> None:
    assert child.stdin
    with suppress(OSError), child.stdin:
        while (piece := stdin()) is not None:
            child.stdin.write(piece)
            child.stdin.flush()
