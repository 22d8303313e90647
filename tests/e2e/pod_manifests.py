"""A Kubernetes pod as what the test kubelet makes of it: PodSpec, ContainerSpecs and the volumes' content."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.e2e.node.specs import ContainerSpec, PodSpec, VolumeMount
from tests.support.kube_objects import Object

_FACTORS: Final = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
Content = Callable[[str, str], Object]
"""(ConfigMap or Secret, name) gives the object; raises ApiFailure."""


@dataclass(frozen=True)
class Planned:
    pod: PodSpec
    init: list[ContainerSpec]
    containers: list[ContainerSpec]
    files: dict[str, dict[str, bytes]]
    """Content of volumes that are not empty: by volume, then by file name."""
    node_directories: list[str]
    """hostPath volumes that must exist as directories."""


def planned(pod: Object, handler: str, content: Content) -> Planned:
    """Raises ApiFailure for a config map or secret that is missing."""
    metadata, spec = pod["metadata"], pod["spec"]
    volumes: dict[str, str] = {}
    files: dict[str, dict[str, bytes]] = {}
    directories = []
    for volume in spec.get("volumes") or []:
        name = volume["name"]
        volumes[name] = name
        if host := volume.get("hostPath"):
            volumes[name] = host["path"]
            if host.get("type") == "Directory":
                directories.append(host["path"])
        elif kind := next((each for each in ("configMap", "secret") if each in volume), ""):
            files[name] = _files(kind, volume[kind], content)
    containers = spec["containers"]
    context = spec.get("securityContext") or {}
    made = PodSpec(
        metadata["name"],
        metadata["namespace"],
        uid=metadata["uid"],
        handler=handler,
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        host_network=bool(spec.get("hostNetwork")),
        host_pid=bool(spec.get("hostPID")),
        share_processes=bool(spec.get("shareProcessNamespace")),
        privileged=any(
            (each.get("securityContext") or {}).get("privileged")
            for each in [*containers, *(spec.get("initContainers") or [])]
        ),
        service_account=spec.get("automountServiceAccountToken", True),
    )
    return Planned(
        made,
        [_container(each, context, volumes) for each in spec.get("initContainers") or []],
        [_container(each, context, volumes) for each in containers],
        files,
        directories,
    )


def _container(given: Object, pod_context: Object, volumes: dict[str, str]) -> ContainerSpec:
    context = {**pod_context, **(given.get("securityContext") or {})}
    capabilities = context.get("capabilities") or {}
    limits = (given.get("resources") or {}).get("limits") or {}
    return ContainerSpec(
        given["image"],
        given["name"],
        command=_words(given.get("command")),
        args=_words(given.get("args")),
        working_dir=given.get("workingDir", ""),
        env={each["name"]: str(each.get("value", "")) for each in given.get("env") or []},
        mounts=tuple(
            VolumeMount(each["mountPath"], volumes[each["name"]], each.get("readOnly", False), each.get("subPath", ""))
            for each in given.get("volumeMounts") or []
        ),
        tty=given.get("tty", False),
        stdin=given.get("stdin", False),
        privileged=context.get("privileged", False),
        read_only_root=context.get("readOnlyRootFilesystem", False),
        run_as_user=context.get("runAsUser"),
        run_as_group=context.get("runAsGroup"),
        no_new_privileges=context.get("allowPrivilegeEscalation") is False,
        add_capabilities=tuple(capabilities.get("add") or ()),
        drop_capabilities=tuple(capabilities.get("drop") or ()),
        seccomp="RuntimeDefault"
        if (context.get("seccompProfile") or {}).get("type") == "RuntimeDefault"
        else "Unconfined",
        memory_limit_bytes=quantity(limits.get("memory", 0)),
        cpu_quota=int(_cpus(limits.get("cpu", 0)) * 100_000),
        termination_log=True,
    )


def _words(given: list[str] | None) -> tuple[str, ...]:
    """As the kubelet hands them on where no variable is named: ``$$`` stands for ``$``."""
    return tuple(word.replace("$$", "$") for word in given or ())


def _files(kind: str, volume: Object, content: Content) -> dict[str, bytes]:
    name = volume["name"] if kind == "configMap" else volume["secretName"]
    found = content("ConfigMap" if kind == "configMap" else "Secret", name)
    plain = {key: value.encode() for key, value in (found.get("data") or {}).items()}
    if kind == "secret":
        plain = {key: base64.b64decode(value) for key, value in plain.items()}
    return plain


def quantity(text: Any) -> int:
    """``64Mi`` in bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", str(text))
    assert found, f"{text} is no quantity"
    return int(float(found[1]) * _FACTORS[found[2]])


def _cpus(text: Any) -> float:
    written = str(text)
    return float(written[:-1]) / 1000 if written.endswith("m") else float(written)
