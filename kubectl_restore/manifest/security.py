"""The security context under which a restored process is no more than its pod: what it had when it was dumped.

A restore brings user, capabilities, no_new_privs and seccomp back from the dump, so a pod that asks for others is
refused by the node (shared/judge). Sources: containerd internal/cri/server/container_create_linux.go.
"""

from __future__ import annotations

from typing import Any

from kubectl_restore.check.pod import DEFAULT_CAPABILITIES
from kubectl_restore.manifest.commented import Comments
from shared.criu.capabilities import NAMES
from shared.criu.dump import Dump
from shared.judge.settings import is_privileged
from shared.spec import RuntimeSpec

Object = dict[str, Any]


def fit_security(pod: Object, container: Object, spec: RuntimeSpec, comments: Comments) -> None:
    """Changes the container's securityContext where the two together would ask for something else."""
    own: Object = container.setdefault("securityContext", {})
    given = {**(pod.get("securityContext") or {}), **own}

    def put(key: str, value: object, why: str) -> None:
        if given.get(key) != value:
            own[key] = value
            comments.add(own, key, why)

    ran = "the checkpointed process was started as this and stays it"
    put("runAsUser", spec.uid, ran)
    put("runAsGroup", spec.gid, ran)
    if given.get("runAsNonRoot") is True and spec.uid == 0:
        put("runAsNonRoot", False, "the checkpointed process was started as root")
    privileged = is_privileged(spec)
    if (given.get("privileged") is True) != privileged:
        put("privileged", privileged, f"the checkpointed container was {'' if privileged else 'not '}privileged")
    if (given.get("readOnlyRootFilesystem") is True) != spec.root_readonly:
        was = "read-only" if spec.root_readonly else "writable"
        put("readOnlyRootFilesystem", spec.root_readonly, f"the checkpointed container's root was {was}")
    if not privileged:
        _escalation(own, given, spec, comments)
        _capabilities(own, given, spec, comments)
        _seccomp(own, given, spec, comments)
    if not own:
        del container["securityContext"]


def fit_namespaces(pod: Object, spec: RuntimeSpec, dump: Dump, comments: Comments) -> None:
    """What the pod shares with its node, or its containers with each other."""
    listed = {each.type: each for each in spec.namespaces}
    ids, node = dump.root.ids, dump.inventory.ids
    pid_shared = "pid" not in listed or (bool(node.pid_ns) and ids.pid_ns == node.pid_ns)
    wanted = {
        "hostNetwork": "network" not in listed or (bool(node.net_ns) and ids.net_ns == node.net_ns),
        "hostPID": pid_shared,
        "hostIPC": "ipc" not in listed or (bool(node.ipc_ns) and ids.ipc_ns == node.ipc_ns),
        "shareProcessNamespace": not pid_shared and bool(listed["pid"].path),
    }
    for key, value in wanted.items():
        if (pod.get(key) is True) != value:
            pod[key] = value
            comments.add(pod, key, f"the checkpointed container {'shared' if value else 'did not share'} this")
    if "user" in listed and pod.get("hostUsers") is not False:
        pod["hostUsers"] = False
        comments.add(pod, "hostUsers", "the checkpointed container had a user namespace of its own")


def set_groups(pod: Object, spec: RuntimeSpec, comments: Comments) -> None:
    """Of a made-up pod; those of the image's /etc/group are among them, and naming them again changes nothing."""
    if groups := sorted(set(spec.additional_gids) - {spec.gid}):
        context: Object = pod.setdefault("securityContext", {})
        context["supplementalGroups"] = groups
        comments.add(context, "supplementalGroups", "the groups of the checkpointed process beside its own")


def _escalation(own: Object, given: Object, spec: RuntimeSpec, comments: Comments) -> None:
    if (given.get("allowPrivilegeEscalation") is False) != spec.no_new_privileges:
        own["allowPrivilegeEscalation"] = not spec.no_new_privileges
        comments.add(own, "allowPrivilegeEscalation", "as the checkpointed process may (no_new_privs cannot change)")


def _capabilities(own: Object, given: Object, spec: RuntimeSpec, comments: Comments) -> None:
    asked = given.get("capabilities") or {}
    bounding = spec.capabilities.bounding
    if _granted(asked) == bounding:
        return
    add, drop = bounding - DEFAULT_CAPABILITIES, DEFAULT_CAPABILITIES - bounding
    wanted: Object = {}
    if add:
        wanted["add"] = _short(add)
    if drop:
        wanted["drop"] = ["ALL"] if not bounding & DEFAULT_CAPABILITIES else _short(drop)
    own["capabilities"] = wanted
    comments.add(own, "capabilities", "those of the checkpointed container")


def _granted(asked: Object) -> frozenset[str]:
    add = frozenset("CAP_" + str(each).upper().removeprefix("CAP_") for each in asked.get("add") or [])
    drop = frozenset("CAP_" + str(each).upper().removeprefix("CAP_") for each in asked.get("drop") or [])
    start = frozenset(NAMES) if "CAP_ALL" in add else frozenset() if "CAP_ALL" in drop else DEFAULT_CAPABILITIES
    return (start - drop) | (add - {"CAP_ALL"})


def _short(names: frozenset[str]) -> list[str]:
    return sorted(name.removeprefix("CAP_") for name in names)


def _seccomp(own: Object, given: Object, spec: RuntimeSpec, comments: Comments) -> None:
    kind = (given.get("seccompProfile") or {}).get("type")
    if spec.seccomp and spec.annotations.get("io.container.manager") == "libpod":
        if kind != "Unconfined":
            own["seccompProfile"] = {"type": "Unconfined"}
            why = "the process keeps Podman's filter, which allows more than the node's default does"
            comments.add(own, "seccompProfile", why)
    elif spec.seccomp and kind in (None, "Unconfined"):
        own["seccompProfile"] = {"type": "RuntimeDefault"}
        comments.add(
            own, "seccompProfile", "the checkpointed process has a filter; which profile it is of is not known"
        )
    elif not spec.seccomp and kind in ("RuntimeDefault", "Localhost"):
        own["seccompProfile"] = {"type": "Unconfined"}
        comments.add(own, "seccompProfile", "the checkpointed process has no filter, and a restore adds none")
