from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubectl_restore.kube import exec as execution
from kubectl_restore.kube.connection import Connection, connect
from kubectl_restore.kube.errors import ApiRefused, Forbidden
from kubectl_restore.kube.exec import CommandInPodFailed, StreamBroken, output, stream
from kubectl_restore.kube.flags import ClusterFlags
from shared.errors import RestoreError
from tests.support.kube_api import KubeApi
from tests.support.kube_backend import Answer
from tests.support.kube_memory import MemoryNodes


@pytest.fixture(autouse=True)
def _web(api: KubeApi) -> None:
    api.add_pod("web")


def run(connection: Connection, *command: str, **limits: Any) -> str:
    return output(connection, "default", "web", "main", command, **limits)


@pytest.mark.parametrize("protocol", execution.PROTOCOLS)
def test_output_comes_on_either_protocol(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setattr(execution, "PROTOCOLS", (protocol,))
    assert run(connection, "printf", "%s|", "a b", "", "ü") == "a b||ü|"


def test_bytes_are_neither_decoded_nor_lost(connection: Connection) -> None:
    script = "head -c 3000000 /dev/zero | tr '\\0' '\\377'; printf '\\200'"
    pieces = stream(connection, "default", "web", "main", ["sh", "-c", script])
    received = b"".join(pieces)
    assert received == b"\xff" * 3_000_000 + b"\x80"


def test_failing_command_gives_its_status_and_words(connection: Connection) -> None:
    with pytest.raises(CommandInPodFailed, match="sh in the pod failed with exit status 3: second") as error:
        run(connection, "sh", "-c", "echo first >&2; echo second >&2; exit 3")
    assert error.value.code == 3


def test_output_before_the_failure_is_given(connection: Connection) -> None:
    pieces = stream(connection, "default", "web", "main", ["sh", "-c", "echo partly; exit 1"])
    assert next(pieces) == b"partly\n"
    with pytest.raises(CommandInPodFailed):
        next(pieces)


def test_stream_that_ends_without_a_status_is_broken(nodes: MemoryNodes, connection: Connection) -> None:
    nodes.spoilt, nodes.drop_after = ("head",), [100]
    with pytest.raises(StreamBroken):
        run(connection, "head", "-c", "1000", "/dev/zero")


def test_silence_is_a_broken_stream(connection: Connection) -> None:
    with pytest.raises(StreamBroken, match=r"nothing came for 0\.2 s"):
        run(connection, "sleep", "2", idle_s=0.2)


def test_missing_right_is_told_with_its_role(api: KubeApi, connection: Connection) -> None:
    api.forbid("create", "pods/exec")
    with pytest.raises(Forbidden, match="may not create pods/exec in namespace default") as error:
        run(connection, "true")
    assert "pods/exec" in error.value.remedy


def test_missing_pod_is_told_as_such(connection: Connection) -> None:
    with pytest.raises(ApiRefused, match='pods "gone" not found'):
        output(connection, "default", "gone", "main", ["true"])


def test_wrong_token_is_told_as_such(kubeconfig: Path) -> None:
    with pytest.raises(ApiRefused, match="does not know who you are"):
        run(connect(ClusterFlags(kubeconfig=kubeconfig, token="wrong")), "true")


def test_identity_is_sent_with_the_handshake(api: KubeApi, kubeconfig: Path) -> None:
    flags = ClusterFlags(kubeconfig=kubeconfig, as_user="jane", as_groups=["dev", "ops"])
    run(connect(flags), "true")
    (request,) = api.asked("GET", "/exec$")
    assert request.headers["impersonate-user"] == "jane"
    assert request.headers["impersonate-group"] == "dev,ops"
    assert request.query["command"] == ["true"]


def test_certificate_is_checked(api: KubeApi, tmp_path: Path) -> None:
    flags = ClusterFlags(server=api.url, token="admin-token")
    with pytest.raises(StreamBroken, match=r"(?i)certificate"):
        run(connect(flags), "true")
    assert api.requests == []
    assert run(connect(ClusterFlags(server=api.url, token="admin-token", insecure_skip_tls_verify=True)), "true") == ""


def test_plain_http_works_too(nodes: MemoryNodes, tmp_path: Path) -> None:
    with KubeApi(nodes, tls=False) as api:
        api.add_pod("web")
        flags = ClusterFlags(kubeconfig=api.write_kubeconfig(tmp_path / "plain"))
        assert run(connect(flags), "echo", "hi") == "hi\n"


@pytest.mark.parametrize(
    ("payload", "error", "sentence"),
    [
        (b"not json", StreamBroken, "status cannot be read"),
        (b'["Success"]', StreamBroken, "status cannot be read"),
        (b"[" * 100_000, StreamBroken, "status cannot be read"),
        (b'{"details":{"causes":[{"reason":"ExitCode"}]}}', StreamBroken, "status cannot be read"),
        (b'{"details":{"causes":[{"reason":"ExitCode","message":"many"}]}}', StreamBroken, "status cannot be read"),
        (b'{"message":"a\\u001b[2Jb"}', RestoreError, r"the pod: a\\x1b\[2Jb$"),
        (b'{"status":"Failure","message":"no such container"}', RestoreError, "could not be run in the pod: no such"),
    ],
)
def test_odd_statuses(payload: bytes, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        execution._check(payload, ["true"], "")


def test_proxy_page_instead_of_a_handshake(api: KubeApi, connection: Connection) -> None:
    api.answer("GET", "/exec$", Answer(502, "<html>bad gateway</html>"))
    with pytest.raises(ApiRefused, match="bad gateway"):
        run(connection, "true")
