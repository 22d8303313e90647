"""The rules of pods that the stub API server checks, worded as kubernetes words them (pkg/apis/core/validation)."""

from __future__ import annotations

from tests.support.kube_objects import ApiFailure, Object


def check_pod(pod: Object) -> None:
    """The few rules of pods that a wrong manifest breaks most often; raises ApiFailure 422."""
    name = pod.get("metadata", {}).get("name", "")
    problems = []
    containers = pod.get("spec", {}).get("containers") or []
    if not containers:
        problems.append("spec.containers: Required value")
    volumes = {each.get("name") for each in pod.get("spec", {}).get("volumes") or []}
    for number, container in enumerate(containers):
        if not container.get("name"):
            problems.append(f"spec.containers[{number}].name: Required value")
        if not container.get("image"):
            problems.append(f"spec.containers[{number}].image: Required value")
        problems += [
            f'spec.containers[{number}].volumeMounts[{index}].name: Not found: "{mount.get("name")}"'
            for index, mount in enumerate(container.get("volumeMounts") or [])
            if mount.get("name") not in volumes
        ]
    if problems:
        text = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        raise ApiFailure(422, "Invalid", f'Pod "{name}" is invalid: {text}', {"name": name, "kind": "Pod"})
