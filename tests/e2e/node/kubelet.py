"""Pods as the kubelet makes and ends them, through the CRI of a test node."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc

from nri_plugin.containerd import cri_pb2 as cri
from tests.e2e.node import cgroups
from tests.e2e.node.cri import Cri, CriError
from tests.e2e.node.specs import (
    SERVICE_ACCOUNT,
    ContainerSpec,
    PodSpec,
    container_config,
    sandbox_config,
)
from tests.e2e.node.waiting import LIMIT_S, wait_for

if TYPE_CHECKING:
    from tests.e2e.node.node import Node

RUNNING: Final = cri.CONTAINER_RUNNING
_PROPAGATION: Final = {
    "None": cri.PROPAGATION_PRIVATE,
    "HostToContainer": cri.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": cri.PROPAGATION_BIDIRECTIONAL,
}
EXITED: Final = cri.CONTAINER_EXITED
CREATED: Final = cri.CONTAINER_CREATED


@dataclass(frozen=True)
class LogLine:
    """One line of a CRI log: ``TIME STREAM TAG TEXT`` (kubernetes pkg/kubelet/kuberuntime/logs)."""

    time: datetime.datetime
    stream: str
    partial: bool
    text: str


def parse_log(content: str) -> list[LogLine]:
    """Raises ValueError for a line that is not in the format."""
    lines = []
    for line in content.splitlines():
        time, stream, tag, text = line.split(" ", 3)
        lines.append(LogLine(datetime.datetime.fromisoformat(time), stream, tag.startswith("P"), text))
    return lines


@dataclass(frozen=True)
class Executed:
    stdout: str
    stderr: str
    exit_code: int


class Container:
    """One attempt of a container; restarting gives another."""

    def __init__(self, pod: Pod, spec: ContainerSpec, attempt: int, config: cri.ContainerConfig, name: str) -> None:
        self.pod = pod
        self.spec = spec
        self.attempt = attempt
        self.config = config
        self.id = name

    @property
    def _cri(self) -> Cri:
        return self.pod.node.cri

    def start(self, *, deadline_s: float | None = None) -> None:
        self._cri.start_container(self.id, deadline_s=deadline_s)

    def stop(self, grace_s: int = 2, *, deadline_s: float | None = None) -> None:
        self._cri.stop_container(self.id, grace_s, deadline_s=deadline_s)

    def remove(self, *, deadline_s: float | None = None) -> None:
        self._cri.remove_container(self.id, deadline_s=deadline_s)

    def status(self) -> cri.ContainerStatus:
        return self._cri.container_status(self.id).status

    @property
    def state(self) -> int:
        return self.status().state

    def info(self) -> str:
        """containerd's verbose JSON: pid, snapshot, runtime spec."""
        return self._cri.container_status(self.id, verbose=True).info["info"]

    def exec(self, *command: str, timeout_s: int = 60) -> Executed:
        reply = self._cri.exec_sync(self.id, list(command), timeout_s)
        return Executed(reply.stdout.decode(errors="replace"), reply.stderr.decode(errors="replace"), reply.exit_code)

    def sh(self, script: str) -> str:
        """What a shell script in the container printed; raises AssertionError when it fails."""
        done = self.exec("sh", "-c", script)
        assert done.exit_code == 0, f"{script!r} exits with {done.exit_code}: {done.stderr or done.stdout}"
        return done.stdout

    def stats(self) -> cri.ContainerStats:
        return self._cri.container_stats(self.id)

    def update(self, resources: cri.LinuxContainerResources) -> None:
        self._cri.update_container_resources(self.id, resources)

    def log(self) -> list[LogLine]:
        """The whole lines of the container's log on the node, parsed; empty when there is none."""
        file = self.pod.node.path(f"{self.pod.spec.log_directory}/{self.config.log_path}")
        return parse_log(file.read_text(errors="replace").rpartition("\n")[0]) if file.exists() else []

    def logs(self) -> list[str]:
        """Texts of the log's lines."""
        return [line.text for line in self.log()]

    def termination_message(self) -> str:
        return self.pod.node.path(self.pod.termination_log(self.spec, self.attempt)).read_text()

    def wait_for(
        self, predicate: Callable[[Container], bool], what: str = "the container", timeout_s: float = LIMIT_S
    ) -> None:
        wait_for(lambda: predicate(self), f"{what} ({self.spec.name} attempt {self.attempt})", timeout_s=timeout_s)

    def wait_exit(self, timeout_s: float = LIMIT_S) -> cri.ContainerStatus:
        self.wait_for(lambda each: each.state == EXITED, "the exit of the container", timeout_s)
        return self.status()


class Pod:
    def __init__(self, node: Node, spec: PodSpec) -> None:
        self.node = node
        self.spec = spec
        self.config = sandbox_config(spec)
        self.id = ""
        self.containers: list[Container] = []

    def start(self, *, deadline_s: float | None = None) -> None:
        """Makes the pod's folders and its sandbox."""
        logs, folder = self.node.path(self.spec.log_directory), self.node.path(self.spec.folder)
        logs.mkdir(parents=True)
        folder.mkdir(parents=True)
        (folder / "etc-hosts").write_text(
            f"# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\t{self.spec.name}\n"
        )
        if self.spec.service_account:
            token = folder / "volumes/kubernetes.io~projected/kube-api-access"
            token.mkdir(parents=True)
            for name in ("ca.crt", "namespace", "token"):
                (token / name).write_text(f"{name} of {self.spec.namespace}/{self.spec.name}\n")
        self.id = self.node.cri.run_pod_sandbox(self.config, self.spec.handler, deadline_s=deadline_s)

    @property
    def ip(self) -> str:
        """Address in the pod network; empty with host network."""
        return self.node.cri.pod_sandbox_status(self.id).status.network.ip

    def create(self, spec: ContainerSpec, attempt: int = 0, *, deadline_s: float | None = None) -> Container:
        """CreateContainer; raises CriError."""
        mounts = self._mounts(spec, attempt)
        image = self.node.cri.image_status(spec.image)
        config = container_config(self.spec, spec, attempt, mounts, image)
        (self.node.path(self.spec.log_directory) / spec.name).mkdir(exist_ok=True)
        name = self.node.cri.create_container(self.id, config, self.config, deadline_s=deadline_s)
        container = Container(self, spec, attempt, config, name)
        self.containers.append(container)
        return container

    def run(self, spec: ContainerSpec, attempt: int = 0, *, deadline_s: float | None = None) -> Container:
        """Creates and starts; raises CriError."""
        container = self.create(spec, attempt, deadline_s=deadline_s)
        container.start(deadline_s=deadline_s)
        return container

    def restart(self, container: Container) -> Container:
        """What the kubelet does after an exit: the same spec with the next restart count."""
        return self.run(container.spec, container.attempt + 1)

    def termination_log(self, spec: ContainerSpec, attempt: int) -> str:
        return f"{self.spec.folder}/containers/{spec.name}/{attempt:08x}"

    def _mounts(self, spec: ContainerSpec, attempt: int) -> list[cri.Mount]:
        mounts = []
        if not self.spec.host_network:
            mounts.append(cri.Mount(container_path="/etc/hosts", host_path=f"{self.spec.folder}/etc-hosts"))
        if spec.termination_log:
            log = self.termination_log(spec, attempt)
            file = self.node.path(log)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            file.chmod(0o666)
            mounts.append(cri.Mount(container_path=spec.termination_path, host_path=log))
        if self.spec.service_account:
            token = f"{self.spec.folder}/volumes/kubernetes.io~projected/kube-api-access"
            mounts.append(cri.Mount(container_path=SERVICE_ACCOUNT, host_path=token, readonly=True))
        for mount in spec.mounts:
            source = mount.volume
            if not source.startswith("/"):
                source = f"{self.spec.folder}/volumes/kubernetes.io~empty-dir/{mount.volume}"
                self.node.path(source).mkdir(parents=True, exist_ok=True)
                self.node.path(source).chmod(0o777)
            if mount.sub_path:
                source += f"/{mount.sub_path}"
                self.node.path(source).mkdir(parents=True, exist_ok=True)
            mounts.append(
                cri.Mount(
                    container_path=mount.path,
                    host_path=source,
                    readonly=mount.read_only,
                    recursive_read_only=mount.recursive,
                    propagation=_PROPAGATION[mount.propagation],
                )
            )
        return mounts

    def stop(self, grace_s: int = 2) -> None:
        """As the kubelet deletes: containers first, then the sandbox."""
        for container in self.containers:
            _unless_shim_dies(lambda each=container: _unless_gone(lambda: each.stop(grace_s)))  # type: ignore[misc]
        if self.id:
            _unless_shim_dies(lambda: _unless_gone(lambda: self.node.cri.stop_pod_sandbox(self.id)))

    def remove(self, grace_s: int = 2) -> None:
        """Stops and removes the pod with its containers, logs, volumes and cgroup; harmless when it is gone."""
        self.stop(grace_s)
        if self.id:
            for each in self.node.cri.list_containers(self.id):
                _unless_gone(lambda name=each.id: self.node.cri.remove_container(name))  # type: ignore[misc]
            _unless_shim_dies(lambda: _unless_gone(lambda: self.node.cri.remove_pod_sandbox(self.id)))
        self.containers.clear()
        self.node.run(["rm", "-rf", self.spec.folder, self.spec.log_directory])
        for root in cgroups.folders(self.node.name):
            group = root / self.spec.cgroup.lstrip("/")
            _rmdir_soon(group)
            # The runtime makes the parents of a container's cgroup and leaves them.
            while group != root and (not group.exists() or _rmdir(group)):
                group = group.parent


class Kubelet:
    """Makes pods on one node and remembers them, so that a test can remove everything it made."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.pods: list[Pod] = []

    def run_pod(self, spec: PodSpec, *, deadline_s: float | None = None) -> Pod:
        pod = Pod(self.node, spec)
        self.pods.append(pod)
        pod.start(deadline_s=deadline_s)
        return pod

    def run(self, pod: PodSpec, *containers: ContainerSpec) -> Pod:
        """A pod with its containers started one after the other, as the kubelet does."""
        running = self.run_pod(pod)
        for container in containers:
            running.run(container)
        return running

    def remove_all(self) -> None:
        """Removes every pod made here, also half-made ones."""
        while self.pods:
            pod = self.pods[-1]
            if not pod.id:
                # RunPodSandbox may have failed or run into its deadline after the runtime made the sandbox.
                found = [each.id for each in self.node.cri.list_pod_sandboxes() if each.metadata.uid == pod.spec.uid]
                pod.id = found[0] if found else ""
            pod.remove(grace_s=0)
            self.pods.pop()


def _unless_gone(call: Callable[[], None]) -> None:
    try:
        call()
    except CriError as error:
        if error.code is not grpc.StatusCode.NOT_FOUND:
            raise


def _unless_shim_dies(call: Callable[[], None], limit_s: float = LIMIT_S) -> None:
    """Tried again, as the kubelet does, where containerd asked a shim just killed before it knew of its death."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return call()
        except CriError as error:
            if "ttrpc: closed" not in error.details or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _rmdir_soon(group: Path, limit_s: float = 20) -> None:
    """Tried again, as the kubelet does: the pod's last processes may still be dying."""
    deadline = time.monotonic() + limit_s
    while group.exists() and not _rmdir(group) and time.monotonic() < deadline:
        time.sleep(0.05)


def _rmdir(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True
