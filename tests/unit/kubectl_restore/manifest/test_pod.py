"""Every generated pod is put before the node's own rules, through what ``check`` makes of a manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_restore.check.pod import check_pod, choose_container
from kubectl_restore.manifest.commented import as_yaml
from kubectl_restore.manifest.pod import UNKNOWN_IMAGE, Wanted, bare_pod, fit
from kubectl_restore.manifest.template import own_part
from kubectl_restore.manifest.workload import difference, restoring
from shared import judge
from shared.archive import open_checkpoint
from shared.criu.dump import read_dump
from shared.metadata import read_checkpoint
from shared.preflight.findings import Level
from tests.support.checkpoints import containerd
from tests.support.pods import InMemory, Security, spec_document, synthetic_dump

SAMPLES = Path(__file__).resolve().parents[5] / "shared" / "data"
IMAGE = "registry.example/checkpoint:1"


def wanted(security: Security | None = None, **changes: Any) -> Wanted:
    chosen = security or Security()
    files = InMemory(containerd(synthetic_dump(chosen), spec=spec_document(chosen)))
    files.path = Path("checkpoint.tar")
    return Wanted(read_checkpoint(files), read_dump(files), IMAGE, **changes)


def refused(document: dict[str, Any], of: Wanted) -> list[str]:
    asked = choose_container(document, "", of.checkpoint.container_name)
    return [
        f"{found.code}: {found.sentence}"
        for found in check_pod(asked, of.checkpoint, of.dump, [])
        if found.level is Level.fails
    ]


def fitted(document: dict[str, Any], of: Wanted) -> str:
    """The pod as YAML, changed in place."""
    name = choose_container(document, "", of.checkpoint.container_name).name
    text = as_yaml(document, fit(document, name, of, known="status" in document))
    document.pop("status", None)
    return text


SECURITIES = [
    Security(),
    Security(uid=1000, gid=1000, drop=("ALL",), no_new_privileges=True, seccomp=True, read_only_root=True),
    Security(add=("CAP_SYS_ADMIN", "CAP_NET_ADMIN")),
    Security(drop=("CAP_MKNOD", "CAP_NET_RAW")),
    Security(uid=1000, gid=1000, groups=(1000, 2000, 3000)),
    Security(privileged=True),
    Security(tty=True),
    Security(data_read_only=True),
    Security(share_processes=True),
    Security(host_network=True),
]


@pytest.mark.parametrize("annotate", [False, True])
@pytest.mark.parametrize("security", SECURITIES, ids=str)
def test_pod_of_nothing_but_the_checkpoint_passes_the_nodes_rules(security: Security, annotate: bool) -> None:
    of = wanted(security, annotate=annotate)
    pod = bare_pod(of.checkpoint)
    text = fitted(pod, of)
    assert yaml.safe_load(text) == pod
    assert refused(pod, of) == []


def test_groups_are_those_of_the_process() -> None:
    of = wanted(Security(uid=1000, gid=1000, groups=(3000, 1000, 2000)))
    pod = bare_pod(of.checkpoint)
    fitted(pod, of)
    assert pod["spec"]["securityContext"] == {"supplementalGroups": [2000, 3000]}
    alone = wanted(Security(uid=1000, gid=1000))
    pod = bare_pod(alone.checkpoint)
    fitted(pod, alone)
    assert "securityContext" not in pod["spec"]


def running(of: Wanted, **container: Any) -> dict[str, Any]:
    """The pod as the API server has it, with everything it adds."""
    name = of.checkpoint.container_name
    token = {"name": "kube-api-access-7xvlq", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "uid": "u",
            "resourceVersion": "5",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "generateName": "web-",
            "managedFields": [{}],
            "ownerReferences": [{"kind": "ReplicaSet"}],
            "labels": {"app": "web", "pod-template-hash": "x"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "blue"},
        },
        "spec": {
            "nodeName": "node-1",
            "priority": 0,
            "preemptionPolicy": "PreemptLowerPriority",
            "serviceAccount": "web",
            "serviceAccountName": "web",
            "restartPolicy": "OnFailure",
            "tolerations": [
                {
                    "key": "node.kubernetes.io/not-ready",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 300,
                }
            ],
            "containers": [
                {"name": "first", "image": "other:1"},
                {
                    "name": name,
                    "image": "app:1",
                    "command": ["/bin/app"],
                    "args": ["--serve"],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}, token],
                    "readinessProbe": {"tcpSocket": {"port": 80}},
                    **container,
                },
            ],
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": token["name"], "projected": {"sources": []}},
            ],
        },
        "status": {"phase": "Running"},
    }


@pytest.mark.parametrize("security", SECURITIES, ids=str)
def test_pod_that_asks_for_something_else_is_made_to_fit(security: Security) -> None:
    of = wanted(security)
    pod = own_part(running(of))
    fitted(pod, of)
    assert refused(pod, of) == []


def test_what_is_the_servers_goes_and_what_is_the_users_stays() -> None:
    of = wanted()
    pod = own_part(running(of))
    fit(pod, of.checkpoint.container_name, of, known=True)
    assert pod["metadata"] == {
        "name": "web",
        "namespace": "shop",
        "labels": {"app": "web"},
        "annotations": {"team": "blue"},
    }
    spec = pod["spec"]
    assert not {"nodeName", "priority", "preemptionPolicy", "serviceAccount", "tolerations"} & set(spec)
    assert spec["serviceAccountName"] == "web" and spec["restartPolicy"] == "OnFailure"
    assert spec["runtimeClassName"] == "nri-restore" and spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert spec["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    first, restored = spec["containers"]
    assert first == {"name": "first", "image": "other:1"}
    assert restored["image"] == IMAGE and not {"command", "args"} & set(restored)
    assert restored["readinessProbe"] == {"tcpSocket": {"port": 80}}
    assert restored["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]


def test_annotation_leaves_image_and_command() -> None:
    of = wanted(annotate=True)
    pod = own_part(running(of))
    fit(pod, of.checkpoint.container_name, of, known=True)
    restored = pod["spec"]["containers"][1]
    assert restored["image"] == "app:1" and restored["command"] == ["/bin/app"]
    assert pod["metadata"]["annotations"][f"nri-restore/checkpoint.{restored['name']}"] == IMAGE
    assert refused(pod, of) == []


@pytest.mark.parametrize(("limit", "result"), [("1Gi", "1Gi"), ("1Ki", "1Mi"), ("nonsense", "nonsense")])
def test_memory_limit_is_not_below_what_the_dump_holds(limit: str, result: str) -> None:
    of = wanted()
    pod = own_part(running(of, resources={"limits": {"memory": limit}}))
    fit(pod, of.checkpoint.container_name, of, known=True)
    assert pod["spec"]["containers"][1]["resources"]["limits"]["memory"] == result


def test_unknown_mount_of_the_pod_goes_with_its_volume() -> None:
    of = wanted()
    given = running(of)
    given["spec"]["containers"][1]["volumeMounts"].append({"name": "more", "mountPath": "/more"})
    given["spec"]["volumes"].append({"name": "more", "configMap": {"name": "gone"}})
    pod = own_part(given)
    assert "/more" in fitted(pod, of)
    assert [each["name"] for each in pod["spec"]["volumes"]] == ["data"]
    assert refused(pod, of) == []


@pytest.mark.parametrize("sample", ["counter-containerd21", "counter-kubelet136"])
@pytest.mark.parametrize("annotate", [False, True])
def test_real_checkpoints(sample: str, annotate: bool) -> None:
    if not SAMPLES.is_dir():
        pytest.skip("the real checkpoints lie beside the checkout, in ../shared/data, and are not there")
    with open_checkpoint(SAMPLES / f"{sample}.tar") as files:
        of = Wanted(read_checkpoint(files), judge.read(files).dump, "", annotate)
    pod = bare_pod(of.checkpoint)
    text = fitted(pod, of)
    assert UNKNOWN_IMAGE in text
    assert refused(pod, of) == []
    assert (pod["spec"].get("automountServiceAccountToken") is False) == (sample == "counter-containerd21")


def test_image_that_does_not_say_what_to_run_gets_the_command_of_the_process() -> None:
    of = wanted(has_command=False)
    words = ("sh", "-c", "echo $HOME $(whoami) $$ $((i + 1)) $$(x)")
    of = replace(of, checkpoint=replace(of.checkpoint, spec=replace(of.checkpoint.spec, args=words)))
    pod = bare_pod(of.checkpoint)
    fitted(pod, of)
    # As the kubelet reads it: $$ is $, and $(NAME) a variable of the pod.
    assert pod["spec"]["containers"][0]["command"] == ["sh", "-c", "echo $HOME $$(whoami) $$$$ $$((i + 1)) $$$$(x)"]
    fitted(pod, replace(of, has_command=True))
    assert "command" not in pod["spec"]["containers"][0]


def test_filter_of_podman_is_not_held_against_the_nodes_default() -> None:
    of = wanted(Security(seccomp=True))
    annotated = replace(of.checkpoint.spec, annotations={"io.container.manager": "libpod"})
    pod = bare_pod(of.checkpoint)
    fitted(pod, replace(of, checkpoint=replace(of.checkpoint, spec=annotated)))
    assert pod["spec"]["containers"][0]["securityContext"]["seccompProfile"] == {"type": "Unconfined"}


def test_text_of_a_hostile_checkpoint_stays_in_its_comment() -> None:
    of = wanted()
    chosen = Security()
    document = spec_document(chosen)
    document["mounts"].append(
        {"destination": "/x", "type": "bind", "source": "/a\nprivileged: true", "options": ["rw"]}
    )
    made = synthetic_dump(chosen)
    made.add_mount("/x")
    files = InMemory(containerd(made, spec=document))
    files.path = Path("checkpoint.tar")
    of = Wanted(read_checkpoint(files), read_dump(files), IMAGE)
    pod = bare_pod(of.checkpoint)
    text = fitted(pod, of)
    assert yaml.safe_load(text) == pod
    assert not [line for line in text.splitlines() if line.strip().startswith("privileged")]
    assert "hostPath" not in text


def test_patch_of_a_deployment_and_new_job() -> None:
    of = wanted()
    pod = own_part(running(of))
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod["spec"]}
    deployment = {
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"replicas": 3, "template": template},
    }
    made = restoring(deployment, of.checkpoint.container_name, of)
    patch = made.document["spec"]["template"]["spec"]
    assert patch["runtimeClassName"] == "nri-restore" and patch["containers"][1]["image"] == IMAGE
    assert "serviceAccountName" not in patch and "volumes" not in patch
    assert made.heading.startswith("kubectl patch deployment web -n shop --type merge")
    assert "3 replicas" in as_yaml(made.document, made.comments)
    job = {"kind": "Job", "metadata": deployment["metadata"], "spec": {"selector": {}, "template": template}}
    new = restoring(job, of.checkpoint.container_name, of).document
    assert new["kind"] == "Job" and new["metadata"]["name"] == "web-restored" and "selector" not in new["spec"]
    assert refused(new, of) == []


def test_merge_patch_removes_with_null() -> None:
    from kubectl_restore.manifest.commented import Comments

    before = {"a": 1, "b": {"c": 1, "d": 2}, "e": [1], "same": {}, "creationTimestamp": None}
    after = {"b": {"c": 2}, "e": [2], "same": {}}
    assert difference(before, after, Comments()) == {"b": {"c": 2, "d": None}, "e": [2], "a": None}
