"""A pod as a client would send it: without what the API server, its admission plugins and the kubelet added.

Sources: kubernetes pkg/apis/core/v1/defaults.go, plugin/pkg/admission/{serviceaccount,defaulttolerationseconds,
priority,runtimeclass}, pkg/controller (labels and ownerReferences of controllers).
"""

from __future__ import annotations

import copy
from typing import Any, Final

Object = dict[str, Any]

_METADATA: Final = ("name", "namespace", "labels", "annotations", "finalizers")
"""What of a pod's metadata is its owner's own; finalizers are dropped too, they belong to who set them."""
_ANNOTATIONS: Final = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "kubernetes.io/config.",
    "cni.projectcalico.org/",
    "k8s.v1.cni.cncf.io/network-status",
    "k8s.ovn.org/",
    "batch.kubernetes.io/job-completion-index",
)
_CONTROLLERS_LABELS: Final = (
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "controller-uid",
    "job-name",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "batch.kubernetes.io/job-completion-index",
)
"""With them a controller would take the copy for one of its own, and remove it or another pod."""
_SPEC: Final = ("nodeName", "ephemeralContainers", "priority", "overhead", "serviceAccount", "schedulingGates")
_TOLERATED: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_TOKEN_VOLUME: Final = "kube-api-access-"


def own_part(pod: Object) -> Object:
    """A copy of the pod with only what its author can have written, or wanted."""
    metadata = {key: copy.deepcopy(value) for key, value in pod.get("metadata", {}).items() if key in _METADATA}
    metadata.pop("finalizers", None)
    _keep(metadata, "labels", lambda key: key not in _CONTROLLERS_LABELS)
    _keep(metadata, "annotations", lambda key: not key.startswith(_ANNOTATIONS))
    spec = {key: copy.deepcopy(value) for key, value in pod.get("spec", {}).items() if key not in _SPEC}
    if "priorityClassName" not in spec:
        spec.pop("preemptionPolicy", None)
    _without_tolerations(spec)
    _without_token(spec)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def generated_token(name: object) -> bool:
    """Whether a volume is the service account's, which every pod gets anew."""
    return isinstance(name, str) and name.startswith(_TOKEN_VOLUME)


def _keep(metadata: Object, field: str, wanted: Any) -> None:
    kept = {key: value for key, value in (metadata.pop(field, None) or {}).items() if wanted(key)}
    if kept:
        metadata[field] = kept


def _without_tolerations(spec: Object) -> None:
    kept = [
        each
        for each in spec.pop("tolerations", None) or []
        if not (
            each.get("key") in _TOLERATED and each.get("operator") == "Exists" and each.get("tolerationSeconds") == 300
        )
    ]
    if kept:
        spec["tolerations"] = kept


def _without_token(spec: Object) -> None:
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        _drop_generated(container, "volumeMounts")
    _drop_generated(spec, "volumes")


def _drop_generated(holder: Object, field: str) -> None:
    kept = [each for each in holder.pop(field, None) or [] if not generated_token(each.get("name"))]
    if kept:
        holder[field] = kept
