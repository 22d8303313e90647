"""A pod's container as the runtime would ask for it, and what the node's rules say to that.

The rules compare runtime specs; a manifest is not one. What a manifest leaves to the image, the node or the admission
chain (the user of the image, a default seccomp profile, environment) is taken to be as it was when dumped, so that
only what the manifest itself decides can be refused here. Sources: containerd internal/cri/server
container_create_linux.go and pkg/oci (what security contexts become), kubernetes pkg/kubelet/kubelet_pods.go (mounts).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from kubectl_restore.check.findings import finding
from kubectl_restore.manifest.quantity import bytes_of
from shared import contract
from shared.criu.capabilities import NAMES
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory
from shared.errors import Refused, RestoreError
from shared.judge import PodIdentity, check_command, check_settings, refusals
from shared.judge.mounts import EXPENDABLE, check_mounts
from shared.judge.paths import is_bind, where
from shared.metadata import Checkpoint
from shared.preflight.findings import Finding, Level
from shared.preflight.memory import check_memory_limit
from shared.spec import Capabilities, Mount, Namespace, RuntimeSpec
from shared.special_files import SpecialFile

_TEMPLATES: Final = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "ReplicationController")
DEFAULT_CAPABILITIES: Final = frozenset(
    {
        "CAP_AUDIT_WRITE",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    }
)
"""containerd pkg/oci/spec.go, defaultUnixCaps; what CRI-O lacks of them a dump of CRI-O does not hold either."""
_OF_THE_NODE: Final = {"hostPID": ("pid",), "hostIPC": ("ipc",), "hostNetwork": ("network", "uts")}


@dataclass(frozen=True)
class PodContainer:
    """One container of a manifest."""

    name: str
    metadata: Mapping[str, Any]
    pod: Mapping[str, Any]
    """PodSpec."""
    container: Mapping[str, Any]

    def annotation(self, key: str) -> str | None:
        annotations = _mapping(self.metadata.get("annotations"))
        value = annotations.get(f"{key}.{self.name}", annotations.get(key))
        return value if isinstance(value, str) else None


def choose_container(document: Any, wanted: str, dumped: str) -> PodContainer:
    """The container called ``wanted``; else the one called as the dumped one, else the only one.

    ``document`` is a Pod or what makes pods. Raises RestoreError("PodManifestInvalid").
    """
    document = _mapping(document)
    kind = document.get("kind")
    template = document
    if kind in _TEMPLATES:
        template = _mapping(_mapping(document.get("spec")).get("template"))
    elif kind == "CronJob":
        job = _mapping(_mapping(_mapping(document.get("spec")).get("jobTemplate")).get("spec"))
        template = _mapping(job.get("template"))
    elif kind != "Pod":
        raise RestoreError("PodManifestInvalid", f"the manifest is of a {kind or 'thing without kind'}, not of a pod")
    spec = _mapping(template.get("spec"))
    containers = [_mapping(each) for name in ("containers", "initContainers") for each in _list(spec.get(name))]
    names = [str(each.get("name", "")) for each in containers]
    choice = wanted or (dumped if dumped in names else names[0] if len(names) == 1 else "")
    if choice not in names:
        known = ", ".join(names) or "none"
        raise RestoreError(
            "PodManifestInvalid", f"the pod has the containers {known}; name one of them with --container"
        )
    return PodContainer(choice, _mapping(template.get("metadata")), spec, containers[names.index(choice)])


def check_pod(
    asked: PodContainer,
    checkpoint: Checkpoint,
    dump: Dump,
    special: Sequence[SpecialFile],
    also: Iterable[Finding] = (),
) -> Iterator[Finding]:
    """Every rule of the node's; one finding a code, for many processes break the same one as a rule.

    ``also``: what else was found about the pod (check_memory).
    """
    found = [*_annotations(asked, dump), *_image(asked, checkpoint), *also]
    live = live_spec(asked, checkpoint.spec)
    identity = PodIdentity(group_fixed="runAsGroup" in _security(asked), groups_fixed=False)
    missing: list[str] = []
    rules: Sequence[Callable[[], object]] = (
        lambda: check_command(checkpoint.spec, _arguments(asked)),
        lambda: missing.extend(check_mounts(checkpoint.spec.mounts, live.mounts)),
        lambda: check_settings(checkpoint.spec, live, identity),
    )
    refused: dict[str, Refused] = {}
    for rule in rules:
        try:
            rule()
        except Refused as error:
            refused.setdefault(error.reason, error)
    for each in refusals(dump, checkpoint.spec, live, identity, special):
        refused.setdefault(each.reason, each)
    found += (Finding(code, Level.fails, "pod", why.sentence) for code, why in refused.items())
    found += (finding("WillBeMissing", "pod", sentence) for sentence in missing)
    yield from found
    if not any(one.level is Level.fails for one in found):
        yield finding("PodFits", "pod", f"container {asked.name} of the pod asks for what the checkpoint has")


def check_memory(asked: PodContainer, images: ImageDirectory, dump: Dump) -> Iterator[Finding]:
    """The container's memory limit; raises CheckpointInvalid."""
    limits = _mapping(_mapping(asked.container.get("resources")).get("limits"))
    limit = bytes_of(limits.get("memory"))
    return check_memory_limit(images, dump, limit) if limit else iter(())


def live_spec(asked: PodContainer, dumped: RuntimeSpec) -> RuntimeSpec:
    """The runtime spec that the manifest would become where it decides, the dumped one where it does not."""
    security = _security(asked)
    privileged = security.get("privileged") is True
    seccomp = _mapping(security.get("seccompProfile")).get("type")
    readonly = security.get("readOnlyRootFilesystem") is True
    uid = _number(security.get("runAsUser"), dumped.uid)
    groups = [_number(each, 0) for each in _list(_mapping(asked.pod.get("securityContext")).get("supplementalGroups"))]
    fs_group = _mapping(asked.pod.get("securityContext")).get("fsGroup")
    return replace(
        dumped,
        args=_arguments(asked) or dumped.args,
        terminal=asked.container.get("tty") is True,
        uid=uid,
        gid=_number(security.get("runAsGroup"), dumped.gid if uid == dumped.uid else 0),
        additional_gids=tuple(
            dict.fromkeys([*dumped.additional_gids, *groups, *([_number(fs_group, 0)] if fs_group is not None else [])])
        ),
        capabilities=_capabilities(security, uid, dumped),
        no_new_privileges=security.get("allowPrivilegeEscalation") is False and not privileged,
        seccomp=dumped.seccomp if seccomp is None else seccomp in ("RuntimeDefault", "Localhost") and not privileged,
        apparmor_profile="",
        selinux_label="",
        masked_paths=() if privileged else dumped.masked_paths or _MASKED,
        readonly_paths=() if privileged else dumped.readonly_paths,
        root_readonly=readonly,
        mounts=_mounts(asked, dumped, readonly=readonly, privileged=privileged),
        namespaces=_namespaces(asked, dumped),
    )


_MASKED: Final = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
"""Some of what the runtime masks for every container that is not privileged."""


def _capabilities(security: Mapping[str, Any], uid: int, dumped: RuntimeSpec) -> Capabilities:
    asked = _mapping(security.get("capabilities"))
    if security.get("privileged") is True:
        bounding = frozenset(NAMES) | dumped.capabilities.bounding
    else:
        added = _named(asked.get("add"))
        dropped = _named(asked.get("drop"))
        bounding = frozenset() if "CAP_ALL" in dropped else _defaults(dumped)
        bounding = frozenset(NAMES) if "CAP_ALL" in added else bounding | added
        bounding -= dropped - added
    held = bounding if uid == 0 else frozenset[str]()
    return Capabilities(bounding, held, held, dumped.capabilities.inheritable & bounding, frozenset())


def _defaults(dumped: RuntimeSpec) -> frozenset[str]:
    """The runtime's own default set: the dumped container's if it was a part of what is usual, else the usual."""
    return dumped.capabilities.bounding if dumped.capabilities.bounding < DEFAULT_CAPABILITIES else DEFAULT_CAPABILITIES


def _named(names: object) -> frozenset[str]:
    return frozenset("CAP_" + str(name).upper().removeprefix("CAP_") for name in _list(names))


def _mounts(asked: PodContainer, dumped: RuntimeSpec, *, readonly: bool, privileged: bool) -> tuple[Mount, ...]:
    """The runtime's as they were, /sys by privilege, the kubelet's as for every pod, and what the pod declares."""
    found: dict[str, Mount] = {}
    for mount in dumped.mounts:
        if not is_bind(mount.type, mount.options):
            if mount.destination == "/sys":
                options = [each for each in mount.options if each not in ("ro", "rw")]
                mount = replace(mount, options=(*options, "rw" if privileged else "ro"))
            found[where(mount.destination)] = mount
        elif where(mount.destination) in map(where, (*EXPENDABLE, "/dev/shm")) and _provided(asked, mount):
            options = [each for each in mount.options if each not in ("ro", "rw")]
            follows = mount.destination in ("/etc/hostname", "/etc/resolv.conf")
            access = ("ro" if readonly else "rw") if follows else "ro" if "ro" in mount.options else "rw"
            found[where(mount.destination)] = replace(mount, options=(*options, access))
    for declared in map(_mapping, _list(asked.container.get("volumeMounts"))):
        path = declared.get("mountPath")
        if isinstance(path, str):
            access = "ro" if declared.get("readOnly") is True or _read_only_volume(asked, declared) else "rw"
            found[where(path)] = Mount(path, "bind", f"volume {declared.get('name')}", ("rbind", access))
    return tuple(found.values())


def _provided(asked: PodContainer, mount: Mount) -> bool:
    """Whether the kubelet mounts it by itself; a manifest can turn off the service account's token alone."""
    if where(mount.destination) == "/run/secrets/kubernetes.io/serviceaccount":
        return asked.pod.get("automountServiceAccountToken") is not False
    return True


def _read_only_volume(asked: PodContainer, declared: Mapping[str, Any]) -> bool:
    """The kubelet mounts these read-only whatever the mount says (pkg/volume/{configmap,secret,projected})."""
    for volume in map(_mapping, _list(asked.pod.get("volumes"))):
        if volume.get("name") == declared.get("name"):
            return any(kind in volume for kind in ("configMap", "secret", "projected", "downwardAPI", "image"))
    return False


def _namespaces(asked: PodContainer, dumped: RuntimeSpec) -> tuple[Namespace, ...]:
    """Those of the dumped container, but for what the pod shares with its node or not."""
    found = {namespace.type: namespace for namespace in dumped.namespaces}
    for field, kinds in _OF_THE_NODE.items():
        for kind in kinds:
            if asked.pod.get(field) is True:
                found.pop(kind, None)
            else:
                found.setdefault(kind, Namespace(kind, ""))
    if asked.pod.get("hostUsers") is False:
        found.setdefault("user", Namespace("user", ""))
    return tuple(found.values())


def _annotations(asked: PodContainer, dump: Dump) -> Iterator[Finding]:
    runtime_class = asked.pod.get("runtimeClassName")
    if not runtime_class:
        sentence = f"the pod has no runtimeClassName; it must name the class of the handler {contract.HANDLER}"
        yield finding("HandlerMissing", "pod", sentence)
    elif runtime_class != contract.HANDLER:
        sentence = f"whether the runtimeClass {runtime_class} has the handler {contract.HANDLER} was not looked up"
        yield finding("HandlerUnknown", "pod", sentence)
    options = (asked.annotation(contract.POD_CRIU) or "").replace(",", " ").split()
    if dump.file_locks and "file-locks" not in options:
        yield finding(
            "FileLocksRefused",
            "pod",
            f"the processes hold {dump.file_locks} file locks; give the pod the annotation {contract.POD_CRIU}: "
            "file-locks",
        )
    if dump.sockets_established and asked.annotation(contract.POD_TCP) == "refuse":
        yield finding(
            "TcpEstablished",
            "pod",
            f"the checkpoint holds established TCP connections and the pod's annotation {contract.POD_TCP} is refuse; "
            "set it to close or established",
        )


def _image(asked: PodContainer, checkpoint: Checkpoint) -> Iterator[Finding]:
    """With the annotation, the pod's own image must be the base image; by tag alone that cannot be seen here."""
    image = str(asked.container.get("image", ""))
    if asked.annotation(contract.POD_CHECKPOINT) is None:
        return
    digest = image.partition("@")[2]
    if digest and checkpoint.base.digest and digest != checkpoint.base.digest:
        yield finding(
            "BaseImageDiffers",
            "pod",
            f"the container's image {image} is not the one the checkpoint was made on "
            f"({checkpoint.base.reference or checkpoint.base.name}); use that image",
        )


def _arguments(asked: PodContainer) -> tuple[str, ...]:
    """The command line; empty where the image has a say in it, or variables have."""
    command, args = _list(asked.container.get("command")), _list(asked.container.get("args"))
    words = [str(word) for word in (*command, *args)]
    return () if not command or any("$(" in word for word in words) else tuple(words)


def _security(asked: PodContainer) -> Mapping[str, Any]:
    """The container's security context over the pod's."""
    return {**_mapping(asked.pod.get("securityContext")), **_mapping(asked.container.get("securityContext"))}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default
