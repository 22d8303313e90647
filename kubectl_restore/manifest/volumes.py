"""Volumes and mounts: each mount of the dump must be in the pod, with the same access, and no other one may be.

A source on the node is never taken from a checkpoint, which anybody may have made: what was a hostPath becomes an
emptyDir that says what it stands for.
"""

from __future__ import annotations

import re
from typing import Any, Final

from kubectl_restore.inspect.volumes import PODMANS_MARK, volume_of
from kubectl_restore.manifest.commented import Comments
from shared.judge.mounts import EXPENDABLE
from shared.judge.paths import is_bind, is_read_only, where
from shared.spec import Mount, RuntimeSpec

Object = dict[str, Any]

_BY_THE_KUBELET: Final = frozenset(map(where, (*EXPENDABLE, "/dev/shm")))
_TOKEN: Final = where("/var/run/secrets/kubernetes.io/serviceaccount")
_READ_ONLY: Final = ("configMap", "secret", "projected", "downwardAPI", "image")
"""The kubelet mounts these read-only whatever the mount says (pkg/volume/{configmap,secret,projected})."""
_FIELDS: Final = {"configMap": "name", "secret": "secretName", "persistent volume": "claimName"}


def fit_volumes(pod: Object, container: Object, spec: RuntimeSpec, comments: Comments) -> None:
    needed = {where(each.destination): each for each in spec.mounts if is_bind(each.type, each.options)}
    _token(pod, _TOKEN in needed, comments)
    kept = []
    for mount in container.pop("volumeMounts", None) or []:
        dumped = needed.get(where(str(mount.get("mountPath"))))
        if dumped is None:
            comments.add(
                container,
                "name",
                f"the mount {mount.get('mountPath')} of volume {mount.get('name')} is left out: the checkpointed "
                "container did not have it, and a restore cannot add it",
            )
            continue
        _access(pod, mount, dumped, comments)
        kept.append(mount)
    declared = {where(str(mount["mountPath"])) for mount in kept}
    for path, dumped in needed.items():
        if path not in declared and path not in _BY_THE_KUBELET:
            kept.append(_added(pod, dumped, comments))
    if kept:
        container["volumeMounts"] = kept
    _drop_unused(pod)


def _token(pod: Object, mounted: bool, comments: Comments) -> None:
    if mounted and pod.get("automountServiceAccountToken") is False:
        pod["automountServiceAccountToken"] = True
        comments.add(pod, "automountServiceAccountToken", "the checkpointed container has the token mounted")
    elif not mounted and pod.get("automountServiceAccountToken") is not False:
        pod["automountServiceAccountToken"] = False
        comments.add(pod, "automountServiceAccountToken", "the checkpointed container had no token mounted")


def _access(pod: Object, mount: Object, dumped: Mount, comments: Comments) -> None:
    volume: Object = next((each for each in pod.get("volumes") or [] if each.get("name") == mount.get("name")), {})
    if any(kind in volume for kind in _READ_ONLY):
        return
    read_only = is_read_only(dumped.options)
    if (mount.get("readOnly") is True) != read_only:
        mount["readOnly"] = read_only
        comments.add(mount, "readOnly", "the access that the checkpointed container had")


def _added(pod: Object, dumped: Mount, comments: Comments) -> Object:
    """The mount; its volume is added to the pod."""
    volumes: list[Object] = pod.setdefault("volumes", [])
    known = volume_of(dumped.destination, dumped.source) or ""
    kind, _, said = known.rpartition(" ")
    name = _name(said if kind else dumped.destination, {str(each.get("name")) for each in volumes})
    volume: Object = {"name": name}
    read_only = is_read_only(dumped.options)
    if kind in _FIELDS:
        key = "persistentVolumeClaim" if kind == "persistent volume" else kind
        volume[key] = {_FIELDS[kind]: name}
        comments.add(volume, key, f"{dumped.destination} was a {kind}; the checkpoint has not its name: put it here")
    elif kind == "projected":
        volume[kind] = {"sources": []}
        comments.add(volume, kind, f"{dumped.destination} was a projected volume; its sources are not known: list them")
    elif kind == "downwardAPI":
        volume[kind] = {"items": []}
        comments.add(volume, kind, f"{dumped.destination} was a downwardAPI volume; its items are not known: list them")
    else:
        volume["emptyDir"] = {}
        why = (
            "its content is not in the checkpoint"
            if kind == "emptyDir"
            else "it was the mark that Podman gives its containers, which may be empty"
            if dumped.destination == PODMANS_MARK
            else "it was some volume with a subPath: name the one that is meant"
            if kind == "volume"
            else f"it was {dumped.source} of the node, which is not taken from a checkpoint: name the volume meant"
        )
        comments.add(volume, "emptyDir", f"the process has {dumped.destination} mounted; {why}")
    volumes.append(volume)
    return {"name": name, "mountPath": dumped.destination, **({"readOnly": True} if read_only else {})}


def _name(text: str, taken: set[str]) -> str:
    """A label of DNS (RFC 1123) that no other volume has."""
    base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:50].strip("-") or "volume"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def _drop_unused(pod: Object) -> None:
    """Volumes that no container mounts any more: a missing ConfigMap of theirs would hold the pod up."""
    used = {
        mount.get("name")
        for kind in ("containers", "initContainers")
        for container in pod.get(kind) or []
        for field in ("volumeMounts", "volumeDevices")
        for mount in container.get(field) or []
    }
    if kept := [each for each in pod.pop("volumes", None) or [] if each.get("name") in used]:
        pod["volumes"] = kept
