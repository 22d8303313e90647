"""CRI-O, which Debian has not, played by its source: the order of its calls and NRI events around a container.

Real are NRI's wire, containers/storage (by Podman), conmon, the OCI runtime behind our handler and CRIU; the handler
is read from the drop-in that ``nri-restore node configure crio`` wrote. Played are the CRI's two calls
(server/container_create.go, container_start.go, container_restore.go) and what removes a container.
"""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import tarfile
import threading
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

from google.protobuf.message import Message

from nri_plugin.nri.nri_pb2 import (
    ConfigureRequest,
    Container,
    CreateContainerRequest,
    CreateContainerResponse,
    Event,
    EventRequest,
    LinuxContainer,
    Mount,
    PodSandbox,
    StateChangeEvent,
)
from nri_plugin.ttrpc.ttrpc_pb2 import Response
from shared.contract import CRIU_CONFIG, HANDLER
from tests.e2e.crio.spec import Request, Sandbox, container_spec
from tests.e2e.node.machine import Machine
from tests.e2e.node.node import DAEMON_LOG, PYTHON_PATH
from tests.e2e.node.program import Program
from tests.e2e.node.waiting import wait_for
from tests.unit.nri_plugin.nri.fake_runtime import FakeRuntime, Plugin, handshake

VERSION: Final = "1.37.0"
DROP_INS: Final = "/etc/crio/crio.conf.d"
PACKAGED: Final = """\
[crio.runtime]
default_runtime = "{0}"
[crio.runtime.runtimes.{0}]
runtime_root = "/run/{0}"
monitor_path = "/usr/bin/conmon"
"""
Wrapped = Literal["runc", "crun"]
STORAGE: Final = "/var/lib/containers/storage"
RUN: Final = "/run/containers/storage"
MONITOR: Final = "/opt/nri-restore/checkout/tests/e2e/crio/monitor.py"
CONFIGURED: Final = ConfigureRequest(runtime_name="cri-o", runtime_version=VERSION)
FILTERED: Final = CRIU_CONFIG
"""Of the annotations that CRI-O drops unless a handler allows them, the one that matters here."""


KINDS: Final = ("net", "ipc", "uts")
"""Of namespaces that a pod's containers share, as unshare(1) and pinns call them."""


class CrioError(Exception):
    """What the kubelet would be told."""


def now() -> str:
    return datetime.now(UTC).isoformat()


@dataclass
class Running:
    """A container of CRI-O's."""

    request: Request
    pod: PodSandbox
    spec: dict[str, Any]
    created: str = field(default_factory=now)
    restores_from: str = ""
    """Folder with the files of an archive that CRI-O restores by itself when the container is started."""

    @property
    def id(self) -> str:
        return self.request.container_id

    @property
    def name(self) -> str:
        return str(self.spec["annotations"]["io.kubernetes.cri-o.Name"])

    @property
    def bundle(self) -> str:
        return f"{RUN}/overlay-containers/{self.id}/userdata"

    @property
    def folder(self) -> str:
        return f"{STORAGE}/overlay-containers/{self.id}/userdata"


@dataclass
class Crio:
    """``with Crio(machine) as crio: container = crio.create(sandbox, image, command); crio.start(container)``."""

    machine: Machine
    daemon: Program | None = None
    containers: list[Running] = field(default_factory=list)
    sandboxes: list[Sandbox] = field(default_factory=list)
    _connected: list[Plugin] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """CRI-O's NRI tells one event at a time (internal/nri/nri.go)."""

    def __enter__(self) -> Crio:
        self.machine.sh(
            f"mkdir -p {DROP_INS} /run/nri /run/crio/exits /run/netns /run/ipcns /run/utsns /var/log/pods; "
            f"printf '#!/bin/sh\\necho crio version {VERSION}\\n' >/usr/local/bin/crio; chmod 755 /usr/local/bin/crio"
        )
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._nri = FakeRuntime(self.machine.path("/run/nri/nri.sock"), self._serve)
        self._soon(self._nri.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.daemon:
            self.daemon.stop()
        self._soon(self._nri.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # ---- the node ----

    def nri_restore(self, *words: str, check: bool = True) -> str:
        """Output of the node's ``nri-restore``."""
        command = ["/usr/bin/python3", "-m", "nri_plugin.cli", *words]
        return self.machine.run(command, env={"PYTHONPATH": PYTHON_PATH}, check=check).stdout

    def configure(self, wrapped: Wrapped) -> None:
        """Makes this CRI-O's default runtime, as its packages would, and has the handler wrap it."""
        self.machine.path(f"{DROP_INS}/10-crio.conf").write_text(PACKAGED.format(wrapped))
        self.nri_restore("node", "configure", "crio")

    def start_daemon(self) -> None:
        self.daemon = self.machine.spawn(
            ["/usr/bin/python3", "-m", "nri_plugin.cli", "run"],
            DAEMON_LOG,
            env={"PYTHONPATH": PYTHON_PATH, "PYTHONUNBUFFERED": "1", "PYTHONPYCACHEPREFIX": "/var/cache/python"},
        )
        wait_for(lambda: bool(self._connected), "the daemon to be connected to CRI-O")

    def stop_daemon(self) -> None:
        """Returns when CRI-O has noticed."""
        assert self.daemon
        self.daemon.stop()
        wait_for(lambda: not self._connected, "CRI-O to notice that the daemon is gone")

    @property
    def handler(self) -> dict[str, Any]:
        """As CRI-O reads it: drop-ins in the order of their names, tables merged."""
        found: dict[str, Any] = {}
        for file in sorted(self.machine.path(DROP_INS).iterdir()):
            runtimes = tomllib.loads(file.read_text())["crio"].get("runtime", {}).get("runtimes", {})
            found |= runtimes.get(HANDLER, {})
        return found

    def pull(self, reference: str) -> str:
        """The image's id."""
        return self.podman("pull", "--quiet", "--tls-verify=false", reference).strip()

    def podman(self, *words: str) -> str:
        quiet = {"PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}
        return self.machine.run(["podman", *words], timeout_s=300, env=quiet).stdout

    # ---- the CRI ----

    def run_pod_sandbox(self, name: str, **annotations: str) -> Sandbox:
        identity = secrets.token_hex(32)
        folder = f"{RUN}/overlay-containers/{identity}/userdata"
        given = {key: value for key, value in annotations.items() if key != FILTERED or key in self._allowed}
        sandbox = Sandbox(identity, name, f"{secrets.token_hex(4)}-uid", folder, given)
        self.sandboxes.append(sandbox)
        pins = " ".join(f"--{kind}={sandbox.namespace(kind)}" for kind in KINDS)
        files = " ".join(map(sandbox.namespace, KINDS))
        self.machine.sh(
            f"mkdir -p {folder}/shm /var/log/pods/{name}; touch {files}; "
            f"unshare {pins} sh -c 'hostname {name}; ip link set lo up'; "
            f"mount -t tmpfs -o mode=1777,nosuid,nodev,noexec shm {folder}/shm; cd {folder}; "
            f"echo {name} >hostname; echo nameserver 10.96.0.10 >resolv.conf; echo 127.0.0.1 localhost >hosts; "
            "touch containerenv termination-log"
        )
        return sandbox

    def create(
        self, sandbox: Sandbox, image_id: str, *command: str, attempt: int = 0, restores_from: str = ""
    ) -> Running:
        """CRI CreateContainer; raises CrioError with the error's text."""
        identity = self.podman("create", "--network=none", image_id, *(command or ("none",))).strip()
        config = json.loads(self.podman("image", "inspect", image_id))[0]["Config"]
        request = Request(
            sandbox,
            "counter",
            identity,
            image_id,
            "registry.test/some/name:1",
            self.podman("mount", identity).strip(),
            f"/var/log/pods/{sandbox.name}/counter_{attempt}.log",
            command or (*config.get("Entrypoint", ()), *config["Cmd"]),
            tuple(config.get("Env", ())),
            attempt,
        )
        container = Running(request, self._pod(sandbox), container_spec(request), restores_from=restores_from)
        self.containers.append(container)
        try:
            with self._lock:
                adjusted = self._call(
                    "CreateContainer", CreateContainerRequest(pod=container.pod, container=self._message(container))
                )
            if adjusted.status.code:
                raise CrioError(adjusted.status.message)
            changes = CreateContainerResponse.FromString(adjusted.payload).adjust.annotations
            allowed = {key: value for key, value in changes.items() if key != FILTERED or key in self._allowed}
            container.spec["annotations"] |= allowed
            for folder in (container.folder, container.bundle):
                self.machine.path(folder).mkdir(parents=True, exist_ok=True)
                text = json.dumps(container.spec, indent="\t")
                self.machine.path(f"{folder}/config.json").write_text(text)
            if not restores_from:
                self._monitor(container)
                self._event(Event.POST_CREATE_CONTAINER, container)
        except CrioError:
            # No undoCreateContainer: NRI hears nothing of it (server/container_create.go).
            self._forget(container)
            raise
        return container

    def start(self, container: Running) -> None:
        """CRI StartContainer; raises CrioError."""
        if container.restores_from:
            try:
                self.machine.sh(f"cp -a {container.restores_from}/checkpoint {container.folder}/")
                self._monitor(container, "--restore", f"{container.folder}/checkpoint")
            except CrioError:
                self._forget(container)
                raise
            return
        self._event(Event.START_CONTAINER, container)
        self.oci("start", container.id)
        self._event(Event.POST_START_CONTAINER, container)

    def stop(self, container: Running) -> int:
        """CRI StopContainer; the exit status, as conmon wrote it."""
        self.oci("kill", container.id, "TERM")
        exited = self.machine.path(f"/run/crio/exits/{container.id}")
        wait_for(exited.exists, "the container to end")
        self._event(Event.STOP_CONTAINER, container)
        return int(exited.read_text())

    def remove(self, container: Running) -> None:
        """CRI RemoveContainer."""
        self.oci("delete", "--force", container.id)
        self._forget(container)
        self._event(Event.REMOVE_CONTAINER, container)

    def remove_all(self) -> None:
        for container in list(self.containers):
            self.remove(container)
        for sandbox in self.sandboxes:
            files = " ".join(map(sandbox.namespace, KINDS))
            self.machine.sh(
                f"umount {files} {sandbox.folder}/shm; rm -rf {files} {sandbox.folder} /var/log/pods/{sandbox.name}; "
                f"find /sys/fs/cgroup -depth -path '*{sandbox.cgroup}*' -type d -exec rmdir {{}} \\;"
            )
        self.sandboxes.clear()

    def oci(self, *words: str) -> str:
        handler = self.handler
        return self.machine.run([handler["runtime_path"], "--root", handler["runtime_root"], *words]).stdout

    def log(self, container: Running) -> list[str]:
        text = self.machine.path(container.request.log_path).read_text()
        return [line.split(" ", 3)[3] for line in text.rpartition("\n")[0].splitlines()]

    def checkpoint(self, container: Running) -> bytes:
        """CRI CheckpointContainer: the archive as internal/lib/checkpoint.go packs it; the container goes on."""
        folder = container.folder
        asked = now()
        self.oci("pause", container.id)
        self.oci(
            *("checkpoint", "--file-locks", "--image-path", f"{folder}/checkpoint", "--work-path", folder),
            *("--leave-running", container.id),
        )
        bound = {each["destination"] for each in container.spec["mounts"]}
        diff = json.loads(self.podman("diff", "--format", "json", container.id))
        changed = [path for kind in ("added", "changed") for path in diff.get(kind, ()) if path not in bound]
        rootfs = io.BytesIO()
        with tarfile.open(fileobj=rootfs, mode="w") as tar:
            for path in changed:
                tar.add(self.machine.path(container.request.rootfs + path), path.lstrip("/"), recursive=False)
        config = {
            "id": container.id,
            "name": container.name,
            "rootfsImage": container.request.image_id,
            "rootfsImageRef": container.request.image_id,
            "rootfsImageName": container.request.image_name,
            "runtime": HANDLER,
            "createdTime": container.created,
            "checkpointedTime": asked,
            "restored": False,
        }
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name in ("checkpoint", "dump.log", "stats-dump"):
                tar.add(self.machine.path(f"{folder}/{name}"), name)
            members: dict[str, bytes] = {
                "config.dump": json.dumps(config).encode(),
                "spec.dump": self.machine.path(f"{container.bundle}/config.json").read_bytes(),
                "bind.mounts": b"[]",
                "rootfs-diff.tar": rootfs.getvalue(),
                "deleted.files": json.dumps(diff.get("deleted") or []).encode(),
                "io.kubernetes.cri-o.LogPath": self.machine.path(container.request.log_path).read_bytes(),
            }
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o600
                tar.addfile(entry, io.BytesIO(content))
        self.oci("resume", container.id)
        return out.getvalue()

    # ---- inside ----

    @property
    def _allowed(self) -> Sequence[str]:
        return list(self.handler.get("allowed_annotations", ()))

    def _monitor(self, container: Running, *more: str) -> None:
        handler, bundle = self.handler, container.bundle
        words = [
            handler["monitor_path"], "-b", bundle, "-c", container.id, "--exit-dir", "/run/crio/exits",
            "-l", container.request.log_path, "--log-level", "info", "-n", container.name,
            "-P", f"{bundle}/conmon-pidfile", "-p", f"{bundle}/pidfile", "--persist-dir", container.folder,
            "-r", handler["runtime_path"], "--runtime-arg", f"--root={handler['runtime_root']}",
            "--socket-dir-path", "/run/crio", "--syslog", "-u", container.id, *more,
        ]  # fmt: skip
        said = json.loads(self.machine.run(["/usr/bin/python3", "-I", "-S", MONITOR, *words], timeout_s=90).stdout)
        if said["pid"] < 0:
            raise CrioError(f"container create failed: {said.get('message', '')}")

    def _forget(self, container: Running) -> None:
        self.podman("rm", "--force", container.id)
        self.machine.sh(f"rm -rf {Path(container.folder).parent} {Path(container.bundle).parent}")
        self.containers.remove(container)

    def _pod(self, sandbox: Sandbox) -> PodSandbox:
        return PodSandbox(
            id=sandbox.id,
            name=sandbox.name,
            uid=sandbox.uid,
            namespace="default",
            annotations=dict(sandbox.annotations),
            runtime_handler=sandbox.handler,
        )

    def _message(self, container: Running) -> Container:
        """As containerToNRI makes it: of the pid, nothing."""
        spec = container.spec
        annotations: Mapping[str, str] = spec["annotations"]
        linux = LinuxContainer(cgroups_path=spec["linux"]["cgroupsPath"])
        linux.oom_score_adj.value = spec["process"]["oomScoreAdj"]
        return Container(
            id=container.id,
            pod_sandbox_id=container.pod.id,
            name=annotations["io.kubernetes.container.name"],
            labels=json.loads(annotations["io.kubernetes.cri-o.Labels"]),
            annotations=annotations,
            args=spec["process"]["args"],
            env=spec["process"]["env"],
            mounts=[Mount(**each) for each in spec["mounts"]],
            linux=linux,
        )

    def _event(self, event: int, container: Running) -> None:
        if any(plugin.events & 1 << (event - 1) for plugin in self._connected):
            with self._lock:
                message = self._message(container)
                if event == Event.STOP_CONTAINER:
                    self._call("StopContainer", EventRequest(pod=container.pod, container=message))
                else:
                    self._call("StateChange", StateChangeEvent(event=event, pod=container.pod, container=message))

    def _call(self, method: str, message: Message) -> Response:
        for plugin in self._connected:
            answer: Response = self._soon(plugin.call(method, message))
            return answer
        return Response()  # without a plugin nothing is adjusted

    def _soon(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _serve(self, plugin: Plugin) -> None:
        await handshake(plugin, CONFIGURED)
        self._connected[:] = [plugin]
        await plugin.ended.wait()
        self._connected.remove(plugin)
