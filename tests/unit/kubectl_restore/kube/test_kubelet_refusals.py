"""The texts are those of kubelet 1.30 to 1.36, containerd 1.7 to 2.3 and CRI-O 1.30 (see kubelet_refusals.py)."""

from __future__ import annotations

import json

import pytest

from kubectl_restore.kube.connection import Reply
from kubectl_restore.kube.kubelet_refusals import CheckpointFailed, refused
from kubectl_restore.kube.pods import Target

WEB = Target("shop", "web", "uid", "main", "node-1", "10.0.0.1")


def failed(inner: str) -> str:
    return f"checkpointing of shop/web/main failed ({inner})"


def rpc(code: str, text: str) -> str:
    return failed(f"rpc error: code = {code} desc = {text}")


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        (
            rpc("Unimplemented", "method CheckpointContainer not implemented"),
            "CheckpointUnsupported",
            "(containerd 1.7.24) cannot take checkpoints",
        ),
        (
            rpc("Unimplemented", "unknown method CheckpointContainer for service runtime.v1.RuntimeService"),
            "CheckpointUnsupported",
            "containerd 2.0 or newer",
        ),
        (
            rpc("Unknown", "criu binary not found in shim path or system PATH"),
            "CriuMissing",
            "install the package criu there",
        ),
        (
            rpc("Unknown", 'failed to checkpoint container "x": exec: "criu": executable file not found in $PATH'),
            "CriuMissing",
            "node node-1 has no CRIU",
        ),
        (
            rpc("Unknown", 'CRIU binary too old (<31600). Failed to checkpoint container "x"'),
            "CriuTooOld",
            "install a newer one",
        ),
        (
            rpc("Unknown", "criu support is disabled by configuration"),
            "CheckpointDisabled",
            "enable_criu",
        ),
        (rpc("Unknown", "checkpoint/restore support not available"), "CheckpointDisabled", "container_level_enabled"),
        (
            rpc(
                "Unknown",
                'container "x" is in CONTAINER_EXITED state. only CONTAINER_RUNNING containers can be checkpointed',
            ),
            "ContainerNotRunning",
            "does not run",
        ),
        (rpc("Unknown", "write /var/lib/x: no space left on device"), "NodeDiskFull", "/var/lib/kubelet/checkpoints"),
        (
            rpc("DeadlineExceeded", "context deadline exceeded"),
            "CheckpointTimeout",
            "within 9 s; give it more with --timeout",
        ),
        (failed("context deadline exceeded"), "CheckpointTimeout", "--timeout"),
        (
            rpc(
                "Unknown",
                "checkpointing container failed: criu failed: type NOTIFY errno 0\n"
                "log file: /run/containerd/io.containerd.runtime.v2.task/k8s.io/abc/criu-dump.log: unknown",
            ),
            "CheckpointFailed",
            "criu failed: type NOTIFY errno 0",
        ),
        (failed("something new"), "CheckpointFailed", "failed on node node-1: something new"),
        ("an answer of no known form", "CheckpointFailed", "an answer of no known form"),
    ],
)
def test_failures_of_the_runtime(text: str, reason: str, said: str) -> None:
    error = refused(Reply(500, text.encode()), WEB, runtime="containerd 1.7.24", timeout_s=9)
    assert (error.reason, said in str(error)) == (reason, True), str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "said",
    [
        "criu failed: type DUMP errno 22\nlog file: /var/lib/containerd/x/dump.log",
        (
            f'checkpointing container "{64 * "9"}" failed: runc did not terminate successfully: exit status 1: '
            "criu failed: type DUMP errno 22 path= /var/lib/containerd/x/dump.log: unknown"
        ),
    ],
)
def test_log_of_criu_is_named(said: str) -> None:
    error = refused(Reply(500, rpc("Unknown", said).encode()), WEB)
    assert isinstance(error, CheckpointFailed) and error.log == "/var/lib/containerd/x/dump.log"
    assert str(error) == (
        "the checkpoint of container main of pod shop/web failed on node node-1: criu failed: type DUMP errno 22; "
        "CRIU's log is /var/lib/containerd/x/dump.log on node node-1"
    )


def test_long_reason_is_cut() -> None:
    assert len(str(refused(Reply(500, rpc("Unknown", "x" * 5000).encode()), WEB))) < 800


def status(code: int, reason: str, message: str) -> Reply:
    return Reply(code, json.dumps({"kind": "Status", "code": code, "reason": reason, "message": message}).encode())


@pytest.mark.parametrize(
    ("reply", "reason", "said"),
    [
        (Reply(401, b"Unauthorized"), "Unauthorized", "does not know who you are"),
        (Reply(404, b"pod does not exist"), "PodNotFound", "does not know pod shop/web"),
        (Reply(404, b"container main does not exist"), "ContainerNotFound", "knows no container main"),
        (Reply(404, b"404 page not found\n"), "CheckpointGateOff", "feature gate ContainerCheckpoint"),
        (Reply(404, b"cannot parse value of timeout parameter"), "TimeoutInvalid", "--timeout"),
        (status(404, "NotFound", 'nodes "node-1" not found'), "NodeNotFound", "no longer in the cluster"),
        (
            status(503, "ServiceUnavailable", "error trying to reach service: dial tcp 10.0.0.1:10250: i/o timeout"),
            "KubeletUnreachable",
            "kubectl get node node-1",
        ),
        (Reply(502, b"Bad Gateway"), "KubeletUnreachable", "cannot be reached"),
        (Reply(504, b"<html>504 Gateway Time-out</html>"), "CheckpointTimeout", "the kubelet's time limit"),
        (Reply(405, b"405: Method Not Allowed"), "ApiRefused", "answered 405"),
        (Reply(403, b"nginx says no"), "Forbidden", "nginx says no"),
        (
            Reply(403, b"Forbidden (user=api, verb=create, resource=nodes, subresource(s)=[checkpoint])"),
            "KubeletForbidden",
            'does not let "api" create nodes/checkpoint',
        ),
    ],
)
def test_other_answers(reply: Reply, reason: str, said: str) -> None:
    error = refused(reply, WEB)
    assert (error.reason, said in str(error)) == (reason, True), str(error)
