"""What makes the pods of a Deployment, StatefulSet or Job restore: a merge patch, or for a Job a new one.

A Job's template cannot be changed once it is there (kubernetes pkg/apis/batch/validation, ValidateJobSpecUpdate).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final

from kubectl_restore.manifest.commented import Comments
from kubectl_restore.manifest.pod import Wanted, fit
from kubectl_restore.manifest.template import own_part

Object = dict[str, Any]

KINDS: Final = {
    "deployment": ("Deployment", "deployments", "apps"),
    "deploy": ("Deployment", "deployments", "apps"),
    "statefulset": ("StatefulSet", "statefulsets", "apps"),
    "sts": ("StatefulSet", "statefulsets", "apps"),
    "job": ("Job", "jobs", "batch"),
}
"""Kind, plural and group by what kubectl takes for it."""
_JOB: Final = ("selector", "manualSelector", "suspend")


@dataclass(frozen=True)
class Written:
    document: Object
    comments: Comments
    heading: str = ""
    """What to do with it."""


def restoring(workload: Object, container: str, wanted: Wanted) -> Written:
    before = workload["spec"]["template"]
    template: Object = own_part({"metadata": before.get("metadata") or {}, "spec": before["spec"]})
    for key in ("apiVersion", "kind"):
        del template[key]
    kind, metadata = workload["kind"], workload["metadata"]
    comments = fit(template, container, wanted, known=True)
    if kind == "Job":
        return Written(_new_job(workload, template, comments), comments)
    changed = difference(before, template, comments)
    command = (
        f"kubectl patch {kind.lower()} {metadata['name']} -n {metadata['namespace']} --type merge --patch-file FILE"
    )
    document = {"spec": {"template": changed}}
    if int(workload["spec"].get("replicas", 1)) > 1:
        comments.add(document, "spec", f"every one of the {workload['spec']['replicas']} replicas resumes from it")
    return Written(document, comments, command)


def difference(before: Object, after: Object, comments: Comments) -> Object:
    """A JSON merge patch (RFC 7386); lists are replaced whole. Comments of what is in it come along."""
    patch: Object = {}
    for key in [*after, *(key for key in before if key not in after)]:
        if key not in after:
            # Null removes. What own_part left out was the server's own: in a template only creationTimestamp: null.
            if before[key] is None:
                continue
            patch[key] = None
        elif isinstance(before.get(key), dict) and isinstance(after[key], dict):
            if inner := difference(before[key], after[key], comments):
                patch[key] = inner
        elif key not in before or before[key] != after[key]:
            patch[key] = after[key]
        if key in patch:
            for sentence in comments.of(after, key):
                comments.add(patch, key, sentence)
    return patch


def _new_job(job: Object, template: Object, comments: Comments) -> Object:
    spec = {key: copy.deepcopy(value) for key, value in job["spec"].items() if key not in (*_JOB, "template")}
    metadata = {"name": f"{job['metadata']['name'][:50]}-restored", "namespace": job["metadata"]["namespace"]}
    document = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {**spec, "template": template}}
    comments.add(metadata, "name", "a new Job, for the template of one that is there cannot be changed")
    return document
