"""What a kubelet does for one pod of the stub API server: makes it, starts its containers again, reports, ends it."""

from __future__ import annotations

import datetime
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tests.e2e.node.cri import CriError
from tests.e2e.node.kubelet import CREATED, EXITED, RUNNING, Container, Pod
from tests.e2e.node.node import Node
from tests.e2e.node.specs import ContainerSpec
from tests.e2e.pod_manifests import Planned, planned
from tests.support.kube_objects import ApiFailure, Object, now, resource

if TYPE_CHECKING:
    from tests.e2e.cluster import RealNodes

_PERIOD_S: Final = 0.1
_BACK_OFF_S: Final = (0.3, 0.6, 1.2, 2.4)
"""The kubelet's 10, 20, 40 … s, made short."""


class PodWorker(threading.Thread):
    """One pod's worker: makes it, watches it, starts its containers again, ends it."""

    def __init__(self, nodes: RealNodes, node: Node, pod: Object) -> None:
        super().__init__(daemon=True, name=f"pod {pod['metadata']['name']}")
        self.nodes, self.node, self.object = nodes, node, pod
        self.names = [each["name"] for each in pod["spec"]["containers"]]
        self._attempts: dict[str, Container] = {}
        self._waiting: dict[str, Object] = {each: {"reason": "ContainerCreating"} for each in self.names}
        self._last: dict[str, Object] = {}
        self._restarts: dict[str, int] = {}
        self._retry_at: dict[str, float] = {}
        self._ready: dict[str, bool] = {}
        self._started_at = now()
        self._grace_s: int | None = None
        self._ending = threading.Event()
        self._pod: Pod | None = None
        self.checkpointing = threading.Lock()
        """A request whose client has gone is still worked on when the next one comes."""

    def container(self, name: str = "") -> Container:
        return self._attempts[name or self.names[0]]

    def delete(self, grace_s: int) -> None:
        self._grace_s = grace_s
        self._ending.set()

    # ---- the thread ----

    def run(self) -> None:
        try:
            plan = self._plan()
            if plan and self._sandbox(plan) and self._initialised(plan):
                self._keep(plan)
            self._ending.wait()
        except Exception as error:
            self._event("FailedSync", f"error syncing pod: {error}")
            if not self._ending.is_set():
                self.nodes.api.mistakes.append(f"pod {self.object['metadata']['name']}: {error!r}")
            self._ending.wait()
        finally:
            if self._pod is not None:
                for attempt in range(3):
                    try:
                        self._pod.remove(self._grace_s or 0)
                        break
                    except CriError:
                        if attempt == 2:
                            raise
                        time.sleep(0.5)
            self.nodes.ended(self)

    def _plan(self) -> Planned | None:
        api = self.nodes.api
        namespace = self.object["metadata"]["namespace"]
        wanted = self.object["spec"].get("runtimeClassName", "")
        handler = wanted
        if wanted:
            with suppress(ApiFailure):
                handler = api.objects.get(_kind("runtimeclasses", "node.k8s.io"), "", wanted)["handler"]

        def content(kind: str, name: str) -> Object:
            return api.objects.get(_kind("configmaps" if kind == "ConfigMap" else "secrets"), namespace, name)

        plan = planned(self.object, handler, content)
        absent = [each for each in plan.node_directories if not self.node.path(each).is_dir()]
        if not absent:
            return plan
        self._event(
            "FailedMount",
            f'MountVolume.SetUp failed for volume "{self.object["spec"]["volumes"][0]["name"]}" : '
            f"hostPath type check failed: {absent[0]} is not a directory",
        )
        self._report("Pending")
        return None

    def _sandbox(self, plan: Planned) -> bool:
        self._pod = Pod(self.node, plan.pod)
        self._report("Pending")
        try:
            self._pod.start()
        except CriError as error:
            self._event("FailedCreatePodSandBox", f"Failed to create pod sandbox: {rpc_error(error)}")
            return False
        for volume, files in plan.files.items():
            folder = self.node.path(f"{plan.pod.folder}/volumes/kubernetes.io~empty-dir/{volume}")
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (folder / name).write_bytes(content)
        return True

    def _initialised(self, plan: Planned) -> bool:
        for spec in plan.init:
            if not self._launch(spec, 0):
                return False
            while not self._ending.is_set() and self._attempts[spec.name].state != EXITED:
                time.sleep(_PERIOD_S)
            if self._ending.is_set() or self._attempts[spec.name].status().exit_code:
                self._report("Failed")
                return False
        return True

    def _keep(self, plan: Planned) -> None:
        """Until the pod is deleted or over: starts what is to run, reports what changed."""
        policy = self.object["spec"].get("restartPolicy", "Always")
        specs = {each.name: each for each in plan.containers}
        for spec in plan.containers:
            self._launch(spec, 0)
            self._report(self._phase(policy))
        while not self._ending.wait(_PERIOD_S):
            for name, spec in specs.items():
                self._tend(name, spec, policy)
            phase = self._phase(policy)
            self._report(phase)
            if phase in ("Succeeded", "Failed"):
                return

    def _tend(self, name: str, spec: ContainerSpec, policy: str) -> None:
        attempt = self._attempts.get(name)
        if attempt is not None and name not in self._waiting:
            status = attempt.status()
            if status.state == RUNNING:
                self._ready[name] = self._probe(name, attempt)
                return
            if status.state != EXITED or policy == "Never" or (policy == "OnFailure" and status.exit_code == 0):
                return
            self._last[name] = _terminated(status)
            self._back_off(name)
        if time.monotonic() < self._retry_at.get(name, 0):
            return
        if name in self._retry_at or name in self._waiting:
            # The kubelet counts a restart only when there was a container before.
            number = attempt.attempt + 1 if attempt is not None else 0
            self._launch(spec, number)

    def _back_off(self, name: str) -> None:
        count = self._restarts.get(name, 0)
        self._restarts[name] = count + 1
        self._retry_at[name] = time.monotonic() + _BACK_OFF_S[min(count, len(_BACK_OFF_S) - 1)]
        self._ready[name] = False
        self._waiting[name] = {
            "reason": "CrashLoopBackOff",
            "message": f"back-off restarting failed container={name} pod={self.object['metadata']['name']}",
        }

    def _launch(self, spec: ContainerSpec, number: int) -> bool:
        """Pulls, creates, starts; on failure the container waits with the kubelet's reason."""
        assert self._pod is not None
        name = spec.name
        try:
            self._pull(spec)
        except CriError as error:
            self._event("Failed", f'Failed to pull image "{spec.image}": {rpc_error(error)}', container=name)
            return self._wait(name, "ErrImagePull", rpc_error(error))
        try:
            attempt = self._pod.create(spec, number)
        except CriError as error:
            self._event("Failed", f"Error: {error.details}", container=name)
            return self._wait(name, "CreateContainerError", error.details)
        self._attempts[name] = attempt
        self._event("Created", f"Created container: {name}", container=name, kind="Normal")
        try:
            attempt.start()
        except CriError as error:
            self._event("Failed", f"Error: {error.details}", container=name)
            self._last[name] = _terminated(attempt.status())
            self._restarts[name] = self._restarts.get(name, 0) + 1
            return self._wait(name, "RunContainerError", error.details)
        self._event("Started", f"Started container {name}", container=name, kind="Normal")
        self._waiting.pop(name, None)
        self._retry_at.pop(name, None)
        self._ready[name] = self._probe(name, attempt)
        return True

    def _wait(self, name: str, reason: str, message: str) -> bool:
        self._waiting[name] = {"reason": reason, "message": message}
        count = self._restarts.get(name, 0)
        self._retry_at[name] = time.monotonic() + _BACK_OFF_S[min(count + 1, len(_BACK_OFF_S) - 1)]
        return False

    def _pull(self, spec: ContainerSpec) -> None:
        policy = self._container(spec.name).get("imagePullPolicy") or (
            "Always" if spec.image.endswith(":latest") else "IfNotPresent"
        )
        present = self.node.cri.image_status(spec.image) is not None
        if policy == "Always" or (policy == "IfNotPresent" and not present):
            self._event("Pulling", f'Pulling image "{spec.image}"', container=spec.name, kind="Normal")
            self.node.cri.pull_image(spec.image)

    def _container(self, name: str) -> Object:
        spec = self.object["spec"]
        listed: list[Object] = [*spec["containers"], *(spec.get("initContainers") or [])]
        return next(each for each in listed if each["name"] == name)

    def _probe(self, name: str, attempt: Container) -> bool:
        probe = self._container(name).get("readinessProbe")
        if not probe:
            return True
        with suppress(CriError):
            if "exec" in probe:
                return attempt.exec(*probe["exec"]["command"]).exit_code == 0
            if "httpGet" in probe:
                address = f"http://{attempt.pod.ip}:{probe['httpGet']['port']}{probe['httpGet'].get('path', '/')}"
                return self.node.run(["busybox", "wget", "-q", "-O", "/dev/null", address], check=False).returncode == 0
            if "tcpSocket" in probe:
                port = str(probe["tcpSocket"]["port"])
                return self.node.run(["busybox", "nc", "-z", attempt.pod.ip, port], check=False).returncode == 0
        return False

    # ---- what the API server is told ----

    def _phase(self, policy: str) -> str:
        states = [self._state(each) for each in self.names]
        if any("waiting" in each and each["waiting"].get("reason") != "CrashLoopBackOff" for each in states):
            begun = any(each in self._attempts and self._attempts[each].state != CREATED for each in self.names)
            return "Running" if begun else "Pending"
        if policy != "Always" and all("terminated" in each for each in states):
            failed = any(each["terminated"]["exitCode"] for each in states)
            return "Failed" if failed and policy == "Never" else "Succeeded" if not failed else "Running"
        return "Running"

    def _state(self, name: str) -> Object:
        if name in self._waiting:
            return {"waiting": self._waiting[name]}
        attempt = self._attempts.get(name)
        if attempt is None:
            return {"waiting": {"reason": "PodInitializing"}}
        status = attempt.status()
        if status.state == RUNNING:
            return {"running": {"startedAt": _time(status.started_at)}}
        return {"terminated": _terminated(status)}

    def _report(self, phase: str) -> None:
        statuses = [self._status(each) for each in self.names]
        ready = phase == "Running" and all(each["ready"] for each in statuses)
        wanted: Object = {
            "phase": phase,
            "hostIP": self.nodes.api.address,
            "startTime": self._started_at,
            "containerStatuses": statuses,
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Initialized", "status": "True"},
                {"type": "ContainersReady", "status": "True" if ready else "False"},
                {"type": "Ready", "status": "True" if ready else "False"},
            ],
        }
        if self._pod is not None and self._pod.id and not self._pod.spec.host_network:
            with suppress(CriError):
                wanted["podIP"] = self._pod.ip
        if wanted != getattr(self, "_reported", None):
            self._reported = wanted
            metadata = self.object["metadata"]
            self.nodes.api.set_pod_status(metadata["namespace"], metadata["name"], wanted)

    def _status(self, name: str) -> Object:
        state = self._state(name)
        found: Object = {
            "name": name,
            "image": self._container(name)["image"],
            "ready": "running" in state and self._ready.get(name, False),
            "started": "running" in state,
            "restartCount": self._attempts[name].attempt if name in self._attempts else 0,
            "state": state,
            "lastState": {"terminated": self._last[name]} if name in self._last else {},
        }
        if name in self._attempts:
            found["containerID"] = f"containerd://{self._attempts[name].id}"
            found["imageID"] = self._attempts[name].status().image_ref
        return found

    def _event(self, reason: str, message: str, *, container: str = "", kind: str = "Warning") -> None:
        place = f"spec.containers{{{container}}}" if container else ""
        self.nodes.api.add_event(self.object, reason, message, kind=kind, place=place)


def _terminated(status: Any) -> Object:
    return {
        "exitCode": status.exit_code,
        "reason": status.reason or ("Completed" if status.exit_code == 0 else "Error"),
        "message": status.message,
        "startedAt": _time(status.started_at),
        "finishedAt": _time(status.finished_at),
    }


def _time(nanoseconds: int) -> str:
    return datetime.datetime.fromtimestamp(nanoseconds / 1e9, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rpc_error(error: CriError) -> str:
    code = "".join(word.capitalize() for word in error.code.name.split("_"))
    return f"rpc error: code = {code} desc = {error.details}"


def _kind(plural: str, group: str = "") -> Any:
    found = resource(plural, group)
    assert found is not None
    return found
