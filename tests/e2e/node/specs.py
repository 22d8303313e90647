"""What a test says about a pod and its containers, and the CRI messages the kubelet would make of it.

Source: kubernetes 1.36 pkg/kubelet/kuberuntime (kuberuntime_sandbox.go, kuberuntime_container.go,
kuberuntime_container_linux.go, labels.go) and pkg/securitycontext/util.go.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from nri_plugin.containerd import cri_pb2 as cri

MASKED_PATHS: Final = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
TERMINATION_LOG: Final = "/dev/termination-log"


@dataclass(frozen=True)
class PodSpec:
    name: str
    namespace: str = "default"
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    handler: str = ""
    """Runtime handler; empty is the runtime's default."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_processes: bool = False
    groups: tuple[int, ...] = ()
    """supplementalGroups and fsGroup, which the kubelet sends alike."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    privileged: bool = False
    """A privileged container in the pod needs a privileged sandbox."""
    cgroup_parent: str = ""
    """Empty: ``/kubepods/besteffort/pod<uid>``."""
    service_account: bool = True
    """Whether containers get the projected service-account token."""
    attempt: int = 0

    @property
    def log_directory(self) -> str:
        return f"/var/log/pods/{self.namespace}_{self.name}_{self.uid}"

    @property
    def folder(self) -> str:
        """The kubelet's folder of the pod: volumes, etc-hosts, termination logs."""
        return f"/var/lib/kubelet/pods/{self.uid}"

    @property
    def cgroup(self) -> str:
        return self.cgroup_parent or f"/kubepods/besteffort/pod{self.uid}"


@dataclass(frozen=True)
class VolumeMount:
    path: str
    volume: str
    """Name of an emptyDir of the pod, made when first mounted; or, when it starts with ``/``, a path of the node."""
    read_only: bool = False
    sub_path: str = ""
    recursive: bool = False
    """recursiveReadOnly."""
    propagation: Literal["None", "HostToContainer", "Bidirectional"] = "None"


@dataclass(frozen=True)
class ContainerSpec:
    image: str
    name: str = "main"
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[VolumeMount, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    read_only_root: bool = False
    unmasked: bool = False
    """procMount: Unmasked."""
    devices: tuple[str, ...] = ()
    """Paths of devices of the node."""
    run_as_user: int | None = None
    run_as_group: int | None = None
    no_new_privileges: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    seccomp: Literal["RuntimeDefault", "Unconfined"] = "Unconfined"
    """The kubelet sends Unconfined for a pod without a profile (unless started with seccompDefault)."""
    memory_limit_bytes: int = 0
    cpu_quota: int = 0
    """Microseconds of CPU per 100 ms; 0 is without limit."""
    cpuset: str = ""
    termination_log: bool = True
    termination_path: str = TERMINATION_LOG

    @property
    def hash(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()[:8]


def _namespaces(pod: PodSpec) -> cri.NamespaceOption:
    return cri.NamespaceOption(
        network=cri.NODE if pod.host_network else cri.POD,
        pid=cri.NODE if pod.host_pid else cri.POD if pod.share_processes else cri.CONTAINER,
        ipc=cri.NODE if pod.host_ipc else cri.POD,
    )


def sandbox_config(pod: PodSpec) -> cri.PodSandboxConfig:
    return cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=pod.name, uid=pod.uid, namespace=pod.namespace, attempt=pod.attempt),
        # A pod in the node's network is in the node's UTS namespace too.
        hostname="" if pod.host_network else pod.name,
        log_directory=pod.log_directory,
        dns_config=cri.DNSConfig(
            servers=["10.96.0.10"],
            searches=[f"{pod.namespace}.svc.cluster.local", "svc.cluster.local", "cluster.local"],
            options=["ndots:5"],
        ),
        labels={**_pod_labels(pod), **pod.labels},
        annotations={
            "kubernetes.io/config.seen": "2026-01-01T00:00:00.000000000Z",
            "kubernetes.io/config.source": "api",
            **pod.annotations,
        },
        linux=cri.LinuxPodSandboxConfig(
            cgroup_parent=pod.cgroup,
            security_context=cri.LinuxSandboxSecurityContext(
                privileged=pod.privileged,
                namespace_options=_namespaces(pod),
                supplemental_groups=pod.groups,
                seccomp=cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault),
            ),
            sysctls=pod.sysctls,
            overhead=cri.LinuxContainerResources(),
            resources=cri.LinuxContainerResources(cpu_period=100000, cpu_shares=2),
        ),
    )


def _pod_labels(pod: PodSpec) -> dict[str, str]:
    return {
        "io.kubernetes.pod.name": pod.name,
        "io.kubernetes.pod.namespace": pod.namespace,
        "io.kubernetes.pod.uid": pod.uid,
    }


def container_config(
    pod: PodSpec, container: ContainerSpec, attempt: int, mounts: list[cri.Mount], image_user: cri.Image | None
) -> cri.ContainerConfig:
    """``mounts`` are those the kubelet makes on the node; ``image_user`` tells whom the image runs as."""
    services = {
        "KUBERNETES_PORT": "tcp://10.96.0.1:443",
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
        "KUBERNETES_SERVICE_PORT_HTTPS": "443",
    }
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=container.name, attempt=attempt),
        image=cri.ImageSpec(image=container.image, user_specified_image=container.image),
        command=container.command,
        args=container.args,
        working_dir=container.working_dir,
        envs=[cri.KeyValue(key=key, value=value.encode()) for key, value in {**services, **container.env}.items()],
        mounts=mounts,
        devices=[cri.Device(container_path=path, host_path=path, permissions="rwm") for path in container.devices],
        labels={"io.kubernetes.container.name": container.name, **_pod_labels(pod)},
        annotations={
            "io.kubernetes.container.hash": container.hash,
            "io.kubernetes.container.restartCount": str(attempt),
            "io.kubernetes.container.terminationMessagePath": container.termination_path,
            "io.kubernetes.container.terminationMessagePolicy": "File",
            "io.kubernetes.pod.terminationGracePeriod": "30",
            **container.annotations,
        },
        log_path=f"{container.name}/{attempt}.log",
        stdin=container.stdin,
        tty=container.tty,
        linux=cri.LinuxContainerConfig(
            resources=cri.LinuxContainerResources(
                cpu_period=100000,
                cpu_quota=container.cpu_quota,
                cpu_shares=2,
                cpuset_cpus=container.cpuset,
                memory_limit_in_bytes=container.memory_limit_bytes,
                oom_score_adj=1000,
            ),
            security_context=_security_context(pod, container, image_user),
        ),
    )


def _security_context(
    pod: PodSpec, container: ContainerSpec, image: cri.Image | None
) -> cri.LinuxContainerSecurityContext:
    context = cri.LinuxContainerSecurityContext(
        privileged=container.privileged,
        namespace_options=_namespaces(pod),
        readonly_rootfs=container.read_only_root,
        no_new_privs=container.no_new_privileges,
        supplemental_groups=pod.groups,
        masked_paths=() if container.privileged or container.unmasked else MASKED_PATHS,
        readonly_paths=() if container.privileged or container.unmasked else READONLY_PATHS,
        seccomp=cri.SecurityProfile(profile_type=container.seccomp),
    )
    if container.add_capabilities or container.drop_capabilities:
        context.capabilities.add_capabilities.extend(container.add_capabilities)
        context.capabilities.drop_capabilities.extend(container.drop_capabilities)
    # The kubelet resolves the user itself: the pod's, else the image's number, else its name, else root.
    if container.run_as_user is not None:
        context.run_as_user.value = container.run_as_user
    elif image is not None and image.HasField("uid"):
        context.run_as_user.value = image.uid.value
    elif image is not None and image.username:
        context.run_as_username = image.username
    else:
        context.run_as_user.value = 0
    if container.run_as_group is not None:
        context.run_as_group.value = container.run_as_group
    return context
