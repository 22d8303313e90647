"""What a stub API server keeps: objects by resource, with versions, selectors and watches.

Source of behaviour: kubernetes apiserver (pkg/registry/generic/registry/store.go, pkg/endpoints/handlers): conflict and
already-exists answers, generateName, resourceVersion, watch events.
"""

from __future__ import annotations

import copy
import datetime
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

Object = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    plural: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    short: tuple[str, ...] = ()

    @property
    def qualified(self) -> str:
        """As error texts name it: ``leases.coordination.k8s.io``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


RESOURCES: Final = (
    Resource("pods", "Pod", short=("po",)),
    Resource("nodes", "Node", namespaced=False, short=("no",)),
    Resource("namespaces", "Namespace", namespaced=False, short=("ns",)),
    Resource("events", "Event", short=("ev",)),
    Resource("secrets", "Secret"),
    Resource("configmaps", "ConfigMap", short=("cm",)),
    Resource("serviceaccounts", "ServiceAccount", short=("sa",)),
    Resource("persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",)),
    Resource("services", "Service", short=("svc",)),
    Resource("leases", "Lease", "coordination.k8s.io"),
    Resource("deployments", "Deployment", "apps", short=("deploy",)),
    Resource("replicasets", "ReplicaSet", "apps", short=("rs",)),
    Resource("statefulsets", "StatefulSet", "apps", short=("sts",)),
    Resource("daemonsets", "DaemonSet", "apps", short=("ds",)),
    Resource("jobs", "Job", "batch"),
    Resource("runtimeclasses", "RuntimeClass", "node.k8s.io", namespaced=False),
    Resource("selfsubjectaccessreviews", "SelfSubjectAccessReview", "authorization.k8s.io", namespaced=False),
    Resource("selfsubjectreviews", "SelfSubjectReview", "authentication.k8s.io", namespaced=False),
)


def resource(plural: str, group: str = "") -> Resource | None:
    return next((each for each in RESOURCES if each.plural == plural and each.group == group), None)


class ApiFailure(Exception):
    """An answer other than success, as a ``Status``."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
        if details:
            self.status["details"] = details


def not_found(kind: Resource, name: str) -> ApiFailure:
    details = {"name": name, "kind": kind.plural} | ({"group": kind.group} if kind.group else {})
    return ApiFailure(404, "NotFound", f'{kind.qualified} "{name}" not found', details)


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Objects:
    """Thread-safe; hands out copies, so that what a test holds never changes under it."""

    def __init__(self) -> None:
        self._objects: dict[tuple[Resource, str, str], Object] = {}
        self._events: list[tuple[int, Resource, str, Object]] = []
        self._version = 1000
        self.changed = threading.Condition(threading.RLock())

    @property
    def version(self) -> str:
        return str(self._version)

    def get(self, kind: Resource, namespace: str, name: str) -> Object:
        """Raises ApiFailure 404."""
        with self.changed:
            found = self._objects.get((kind, namespace, name))
            if found is None:
                raise not_found(kind, name)
            return copy.deepcopy(found)

    def find(self, kind: Resource, namespace: str = "", labels: str = "", fields: str = "") -> list[Object]:
        """Objects of all namespaces when ``namespace`` is empty, oldest first."""
        with self.changed:
            return [
                copy.deepcopy(each)
                for (of, where, _), each in self._objects.items()
                if of == kind and (not namespace or where == namespace) and matches(each, labels, fields)
            ]

    def prepare(self, kind: Resource, namespace: str, given: Object) -> Object:
        """The object as it would be stored, without storing it; raises ApiFailure 409, 422."""
        made = copy.deepcopy(given)
        made.setdefault("apiVersion", kind.api_version)
        made.setdefault("kind", kind.kind)
        metadata = made.setdefault("metadata", {})
        if not metadata.get("name"):
            if not metadata.get("generateName"):
                raise ApiFailure(
                    422,
                    "Invalid",
                    f'{kind.kind} "" is invalid: metadata.name: Required value: name or generateName is required',
                )
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        name = metadata["name"]
        if (kind, namespace, name) in self._objects:
            raise ApiFailure(
                409,
                "AlreadyExists",
                f'{kind.qualified} "{name}" already exists',
                {"name": name, "kind": kind.plural},
            )
        if kind.namespaced:
            metadata["namespace"] = namespace
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = now()
        return made

    def create(self, kind: Resource, namespace: str, given: Object) -> Object:
        with self.changed:
            made = self.prepare(kind, namespace, given)
            return self._put(kind, namespace, made, "ADDED")

    def replace(self, kind: Resource, namespace: str, name: str, given: Object) -> Object:
        """Raises ApiFailure 404, and 409 when ``given`` was read before the last change."""
        with self.changed:
            current = self.get(kind, namespace, name)
            wanted = given.get("metadata", {}).get("resourceVersion")
            if wanted and wanted != current["metadata"]["resourceVersion"]:
                raise ApiFailure(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {kind.qualified} "{name}": the object has been modified; '
                    "please apply your changes to the latest version and try again",
                    {"name": name, "kind": kind.plural},
                )
            made = copy.deepcopy(given)
            for key in ("uid", "creationTimestamp", "namespace", "name"):
                if key in current["metadata"]:
                    made["metadata"][key] = current["metadata"][key]
            return self._put(kind, namespace, made, "MODIFIED")

    def merge(self, kind: Resource, namespace: str, name: str, patch: Object) -> Object:
        """RFC 7386."""
        with self.changed:
            current = self.get(kind, namespace, name)
            return self._put(kind, namespace, merged(current, patch), "MODIFIED")

    def remove(self, kind: Resource, namespace: str, name: str) -> Object:
        with self.changed:
            gone = self.get(kind, namespace, name)
            del self._objects[kind, namespace, name]
            self._note(kind, "DELETED", gone)
            return gone

    def _put(self, kind: Resource, namespace: str, made: Object, event: str) -> Object:
        self._note(kind, event, made)
        self._objects[kind, namespace, made["metadata"]["name"]] = made
        return copy.deepcopy(made)

    def _note(self, kind: Resource, event: str, changed: Object) -> None:
        self._version += 1
        changed["metadata"]["resourceVersion"] = str(self._version)
        self._events.append((self._version, kind, event, copy.deepcopy(changed)))
        self.changed.notify_all()

    def watch(
        self, kind: Resource, namespace: str, labels: str, fields: str, since: str, timeout_s: float
    ) -> Iterator[Object]:
        """Events after resource version ``since`` (empty: what is there, then what changes), until the time is up."""
        deadline = time.monotonic() + timeout_s
        with self.changed:
            seen = int(since) if since not in ("", "0") else self._version
            present = [] if since not in ("", "0") else self.find(kind, namespace, labels, fields)
        for each in present:
            yield {"type": "ADDED", "object": each}
        while True:
            with self.changed:
                while not (fresh := [event for event in self._events if event[0] > seen]):
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return
                    self.changed.wait(min(left, 0.5))
            for version, of, event, changed in fresh:
                seen = version
                where = changed["metadata"].get("namespace", "")
                if of == kind and (not namespace or where == namespace) and matches(changed, labels, fields):
                    yield {"type": event, "object": copy.deepcopy(changed)}


def merged(current: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(current) if isinstance(current, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def matches(each: Object, labels: str, fields: str) -> bool:
    """Equality selectors (``a=b``, ``a!=b``, ``a``) of labels and of fields by their path."""
    present = each["metadata"].get("labels", {})
    return all(_holds(part, present.get) for part in filter(None, labels.split(","))) and all(
        _holds(part, lambda path: _field(each, path)) for part in filter(None, fields.split(","))
    )


def _holds(part: str, value_of: Any) -> bool:
    name, sign, wanted = part.replace("==", "=").partition("=")
    if not sign:
        return value_of(name) is not None
    if name.endswith("!"):
        return bool((value_of(name[:-1]) or "") != wanted)
    return bool((value_of(name) or "") == wanted)


def _field(each: Object, path: str) -> str | None:
    found: Any = each
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return None if found is None else str(found)
