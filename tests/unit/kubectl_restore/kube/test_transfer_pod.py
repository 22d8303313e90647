from __future__ import annotations

import pytest

from kubectl_restore.kube.connection import Connection
from kubectl_restore.kube.errors import Forbidden
from kubectl_restore.kube.transfer_pod import IMAGE, manifest, transfer_pod
from shared.errors import RestoreError, Unavailable
from tests.support.kube_api import KubeApi
from tests.support.kube_backend import Answer, HangUp
from tests.support.kube_memory import CHECKPOINTS, MemoryNodes


def test_pod_sees_one_directory_and_can_do_nothing_else() -> None:
    pod = manifest("x", "node-1", CHECKPOINTS, "busybox", 60)
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert spec["volumes"] == [{"name": "checkpoints", "hostPath": {"path": CHECKPOINTS, "type": "Directory"}}]
    assert container["volumeMounts"] == [{"name": "checkpoints", "mountPath": "/checkpoints", "readOnly": True}]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not spec["automountServiceAccountToken"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


def test_pod_ends_by_itself_and_runs_on_any_node() -> None:
    spec = manifest("x", "node-1", CHECKPOINTS, "busybox", 60)["spec"]
    assert (spec["restartPolicy"], spec["activeDeadlineSeconds"]) == ("Never", 60)
    assert spec["nodeName"] == "node-1"
    assert spec["tolerations"] == [{"operator": "Exists"}]


def test_pod_runs_in_the_block_and_is_gone_after_it(api: KubeApi, connection: Connection) -> None:
    with transfer_pod(connection, "node-1", CHECKPOINTS) as pod:
        (running,) = api.pods()
        assert running["metadata"]["name"] == pod.name
        assert running["status"]["phase"] == "Running"
        assert running["spec"]["containers"][0]["image"] == IMAGE
    assert api.pods() == []


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, ValueError])
def test_whatever_ends_the_block_the_pod_goes(
    api: KubeApi, connection: Connection, ending: type[BaseException]
) -> None:
    with pytest.raises(ending), transfer_pod(connection, "node-1", CHECKPOINTS):
        raise ending
    assert api.pods() == []


def test_pod_whose_creation_was_not_confirmed_goes_too(api: KubeApi, connection: Connection) -> None:
    api.answer("GET", "/pods/kubectl-restore-", HangUp)
    with pytest.raises(Unavailable), transfer_pod(connection, "node-1", CHECKPOINTS):
        pass
    assert len(api.asked("DELETE", "/pods/kubectl-restore-")) == 1
    assert api.pods() == []


def test_deletion_that_fails_does_not_hide_the_error(api: KubeApi, connection: Connection) -> None:
    api.forbid("delete", "pods")
    with pytest.raises(ValueError, match="mine"), transfer_pod(connection, "node-1", CHECKPOINTS):
        raise ValueError("mine")


def test_missing_node(api: KubeApi, connection: Connection) -> None:
    with pytest.raises(RestoreError, match='no node "node-9"') as error, transfer_pod(connection, "node-9", "/x"):
        pass
    assert error.value.reason == "NodeNotFound"
    assert api.asked("POST", "/pods$") == []


def test_nodes_that_may_not_be_read_are_believed(api: KubeApi, connection: Connection) -> None:
    api.forbid("get", "nodes")
    with transfer_pod(connection, "node-1", CHECKPOINTS):
        assert len(api.pods()) == 1


def test_missing_directory(api: KubeApi, connection: Connection) -> None:
    with (
        pytest.raises(RestoreError, match=r"/var/lib/nothing cannot be read on node node-1.*not a directory") as error,
        transfer_pod(connection, "node-1", "/var/lib/nothing"),
    ):
        pass
    assert error.value.reason == "NodeDirectoryMissing"
    assert api.pods() == []


def test_image_that_cannot_be_pulled(api: KubeApi, nodes: MemoryNodes, connection: Connection) -> None:
    nodes.missing_images.add("nope:1")
    with (
        pytest.raises(RestoreError, match=r"cannot pull the transfer image nope:1.*--transfer-image") as error,
        transfer_pod(connection, "node-1", CHECKPOINTS, image="nope:1"),
    ):
        pass
    assert error.value.reason == "TransferImageMissing"
    assert api.pods() == []


def test_namespace_that_admits_no_host_paths(api: KubeApi, connection: Connection) -> None:
    said = 'pods "x" is forbidden: violates PodSecurity "baseline:latest": hostPath volumes (volume "checkpoints")'
    api.answer("POST", "/pods$", Answer(403, {"kind": "Status", "reason": "Forbidden", "message": said, "code": 403}))
    with (
        pytest.raises(Forbidden, match=r"PodSecurity.*--transfer-namespace") as error,
        transfer_pod(connection, "node-1", CHECKPOINTS),
    ):
        pass
    assert error.value.reason == "TransferPodRefused"


def test_missing_right_to_create_pods(api: KubeApi, connection: Connection) -> None:
    api.forbid("create", "pods")
    with pytest.raises(Forbidden, match="may not create pods") as error, transfer_pod(connection, "node-1", "/x"):
        pass
    assert 'resources: ["pods"]' in error.value.remedy


def test_other_namespace_is_used(api: KubeApi, connection: Connection) -> None:
    with transfer_pod(connection, "node-1", CHECKPOINTS, namespace="admin"):
        assert api.pods("admin")


def test_pod_that_ends_at_once(api: KubeApi, nodes: MemoryNodes, connection: Connection) -> None:
    nodes.start_s = 60
    api.answer(
        "GET",
        "/pods/kubectl-restore-",
        Answer(200, {"status": {"phase": "Failed", "message": "Pod was rejected: OutOfpods"}}),
    )
    with pytest.raises(RestoreError, match="OutOfpods"), transfer_pod(connection, "node-1", CHECKPOINTS):
        pass


def test_pod_that_never_starts(
    api: KubeApi, nodes: MemoryNodes, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_restore.kube.transfer_pod.START_S", 0.4)
    nodes.start_s = 60
    with (
        pytest.raises(Unavailable, match=r"did not start within 0 s.*kubectl get node node-1"),
        transfer_pod(connection, "node-1", CHECKPOINTS),
    ):
        pass
    assert api.pods() == []


def test_pod_that_others_delete(api: KubeApi, nodes: MemoryNodes, connection: Connection) -> None:
    nodes.start_s = 60
    status = {"kind": "Status", "reason": "NotFound", "code": 404, "message": "not found"}
    api.answer("GET", "/pods/kubectl-restore-", Answer(404, status))
    with pytest.raises(RestoreError, match="deleted by someone else"), transfer_pod(connection, "node-1", CHECKPOINTS):
        pass
