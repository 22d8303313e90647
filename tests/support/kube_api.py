"""A stub Kubernetes API server: what kubectl and kubectl-restore need of one, over HTTP or HTTPS.

``with KubeApi(MemoryNodes(folder)) as api`` has one node, ``node-1``; ``api.write_kubeconfig(path)`` lets a client in.
Pods, events, leases and workloads can be created, read, changed, deleted and watched; a pod is handed to the backend,
which runs it, checkpoints it and executes in it. Answers are worded as kubernetes 1.36 words them
(apiserver pkg/endpoints/handlers, kubelet pkg/kubelet/server).
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.support.kube_backend import Answer, Backend
from tests.support.kube_http import ApiHandler, KubeletHandler, Listener
from tests.support.kube_objects import RESOURCES, ApiFailure, Object, Objects, Resource, now

TLS: Final = Path(__file__).resolve().parents[1] / "data" / "tls"
TOKEN: Final = "admin-token"


@dataclass(frozen=True)
class Ban:
    """What a user may not do; ``*`` is anything."""

    verb: str
    resource: str
    user: str = "*"
    namespace: str = "*"


@dataclass
class Programmed:
    """An answer that replaces the real one, so many times."""

    method: str
    path: str
    answer: Answer | type[Exception]
    times: int


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: Any
    server: str
    """``api`` or ``kubelet``."""


@dataclass
class KubeApi:
    backend: Backend
    tls: bool = True
    address: str = "127.0.0.1"
    tokens: dict[str, str] = field(default_factory=lambda: {TOKEN: "kubernetes-admin"})
    """User by bearer token; empty lets everyone in."""
    kubelet_client: str = "kube-apiserver-kubelet-client"
    """Who the API server is to a kubelet."""
    bans: list[Ban] = field(default_factory=list)
    kubelet_bans: list[Ban] = field(default_factory=list)
    """For requests that reach a kubelet, on any way."""
    checkpoint_gate: bool = True
    version: str = "v1.36.1"
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.objects = Objects()
        self._programmed: list[Programmed] = []
        self.mistakes: list[str] = []
        """Tracebacks of the stub's own errors."""
        self.lock = threading.RLock()

    # ---- life ----

    def __enter__(self) -> Self:
        context = None
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(TLS / "registry.pem")
        self._api = Listener(self.address, self, ApiHandler, context)
        self._kubelet = Listener(self.address, self, KubeletHandler, context)
        self.create("Namespace", "default")
        self.add_node("node-1")
        self.backend.attach(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.backend.close()
        finally:
            self._api.close()
            self._kubelet.close()
        if error is None:
            assert not self.mistakes, f"the stub API server failed: {self.mistakes[0]}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}:{self._api.port}"

    @property
    def kubelet_port(self) -> int:
        return self._kubelet.port

    def kubeconfig(self, *, token: str = TOKEN, namespace: str = "", context: str = "stub") -> Object:
        """A document for ``--kubeconfig``; clusters, users and contexts are all called ``context``."""
        cluster: Object = {"server": self.url}
        if self.tls:
            cluster["certificate-authority"] = str(TLS / "ca.pem")
        entry = {"cluster": context, "user": context} | ({"namespace": namespace} if namespace else {})
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{"name": context, "cluster": cluster}],
            "users": [{"name": context, "user": {"token": token}}],
            "contexts": [{"name": context, "context": entry}],
        }

    def write_kubeconfig(self, path: Path, **settings: str) -> Path:
        path.write_text(json.dumps(self.kubeconfig(**settings)))
        path.chmod(0o600)
        return path

    # ---- what is in the cluster ----

    def create(self, kind: str, name: str, namespace: str = "", **content: Any) -> Object:
        """Adds an object without asking anyone; pods are not handed to the backend."""
        of = _by_kind(kind)
        return self.objects.create(of, namespace, {"metadata": {"name": name}, **content})

    def add_node(
        self, name: str, *, runtime: str = "containerd://2.1.9", address: str = "", ready: bool = True
    ) -> Object:
        status = {
            "addresses": [
                {"type": "InternalIP", "address": address or self.address},
                {"type": "Hostname", "address": name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.kubelet_port}},
            "nodeInfo": {
                "architecture": "amd64",
                "containerRuntimeVersion": runtime,
                "kernelVersion": "6.18.0",
                "kubeletVersion": self.version,
                "operatingSystem": "linux",
                "osImage": "Debian GNU/Linux",
            },
            "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown", "reason": "KubeletReady"}],
        }
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}
        return self.objects.create(
            _by_kind("Node"), "", {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": status}
        )

    def add_pod(
        self,
        name: str,
        *containers: str,
        namespace: str = "default",
        node: str = "node-1",
        annotations: Mapping[str, str] | None = None,
        phase: str = "Running",
        **spec: Any,
    ) -> Object:
        """A pod as if it had long been running, unknown to the backend but for checkpoints of it."""
        named = containers or ("main",)
        content = {
            "spec": {
                "nodeName": node,
                "containers": [{"name": each, "image": "busybox:1"} for each in named],
                **spec,
            },
            "status": self._status(named, phase),
        }
        metadata = {"name": name, "annotations": dict(annotations or {})}
        return self.objects.create(_by_kind("Pod"), namespace, {"metadata": metadata, **content})

    def run_pod(self, manifest: Object, namespace: str = "default") -> Object:
        """A pod as if a client had created it: the backend runs it."""
        manifest = {**manifest, "spec": {"nodeName": "node-1", **manifest["spec"]}, "status": {"phase": "Pending"}}
        made = self.objects.create(_by_kind("Pod"), namespace, manifest)
        self.backend.pod_created(made)
        return made

    def leases(self) -> list[Object]:
        return self.objects.find(_by_kind("Lease"))

    def _status(self, containers: tuple[str, ...], phase: str) -> Object:
        state: Object = {"running": {"startedAt": now()}} if phase == "Running" else {}
        if phase in ("Succeeded", "Failed"):
            state = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now(), "finishedAt": now()}}
        return {
            "phase": phase,
            "hostIP": self.address,
            "podIP": "10.244.0.7",
            "startTime": now(),
            "conditions": [{"type": "Ready", "status": "True" if phase == "Running" else "False"}],
            "containerStatuses": [
                {
                    "name": each,
                    "image": "busybox:1",
                    "imageID": "busybox@sha256:" + "1" * 64,
                    "containerID": "containerd://" + "c" * 64,
                    "ready": phase == "Running",
                    "restartCount": 0,
                    "state": state,
                }
                for each in containers
            ],
        }

    def pods(self, namespace: str = "", labels: str = "") -> list[Object]:
        return self.objects.find(_by_kind("Pod"), namespace, labels)

    def pod(self, name: str, namespace: str = "default") -> Object:
        return self.objects.get(_by_kind("Pod"), namespace, name)

    def set_pod_status(self, namespace: str, name: str, status: Object) -> None:
        """Merges into the pod's status; nothing when the pod is gone."""
        with suppress(ApiFailure):
            self.objects.merge(_by_kind("Pod"), namespace, name, {"status": status})

    def forget_pod(self, namespace: str, name: str) -> None:
        with suppress(ApiFailure):
            self.objects.remove(_by_kind("Pod"), namespace, name)

    def add_event(
        self, involved: Object, reason: str, message: str, *, kind: str = "Warning", place: str = ""
    ) -> Object:
        """``place``: which part of the object, such as ``spec.containers{main}``."""
        metadata = involved["metadata"]
        namespace = metadata.get("namespace", "default")
        content = {
            "metadata": {"generateName": f"{metadata['name']}."},
            "involvedObject": {
                "kind": involved["kind"],
                "name": metadata["name"],
                "namespace": namespace,
                "uid": metadata["uid"],
                **({"fieldPath": place} if place else {}),
            },
            "reason": reason,
            "message": message,
            "type": kind,
            "count": 1,
            "firstTimestamp": now(),
            "lastTimestamp": now(),
        }
        return self.objects.create(_by_kind("Event"), namespace, content)

    # ---- what goes wrong ----

    def forbid(self, verb: str, of: str, *, user: str = "*", namespace: str = "*") -> None:
        """Answers 403 from now on: ``forbid("create", "nodes/proxy")``."""
        self.bans.append(Ban(verb, of, user, namespace))

    def forbid_at_kubelet(self, verb: str, of: str, *, user: str = "*") -> None:
        self.kubelet_bans.append(Ban(verb, of, user))

    def answer(self, method: str, path: str, answer: Answer | type[Exception], times: int = 1) -> None:
        """The next ``times`` requests whose path matches the regular expression get this answer (HangUp: none)."""
        with self.lock:
            self._programmed.append(Programmed(method, path, answer, times))

    def programmed(self, method: str, path: str) -> Answer | type[Exception] | None:
        with self.lock:
            for each in self._programmed:
                if each.times > 0 and each.method == method and re.search(each.path, path):
                    each.times -= 1
                    if isinstance(each.answer, Answer) and each.answer.delay_s:
                        delay = each.answer.delay_s
                        break
                    return each.answer
            else:
                return None
        time.sleep(delay)
        return each.answer

    def may(self, user: str, verb: str, of: str, namespace: str = "") -> bool:
        return not _banned(self.bans, user, verb, of, namespace)

    def may_at_kubelet(self, user: str, verb: str, of: str) -> bool:
        return not _banned(self.kubelet_bans, user, verb, of, "")

    # ---- what was asked ----

    def asked(self, method: str, path: str, server: str = "api") -> list[Request]:
        """Requests so far whose path matches the regular expression."""
        with self.lock:
            return [
                each
                for each in self.requests
                if each.method == method and each.server == server and re.search(path, each.path)
            ]


def _banned(bans: list[Ban], user: str, verb: str, of: str, namespace: str) -> bool:
    return any(
        ban.verb in ("*", verb)
        and ban.resource in ("*", of)
        and ban.user in ("*", user)
        and ban.namespace in ("*", namespace)
        for ban in bans
    )


def _by_kind(kind: str) -> Resource:
    return next(each for each in RESOURCES if each.kind == kind)
