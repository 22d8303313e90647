from __future__ import annotations

import pytest

from kubectl_restore.kube.connection import Connection
from kubectl_restore.kube.criu_log import read_reason, reason_in
from tests.support.kube_api import KubeApi
from tests.support.kube_memory import MemoryNodes

HEAD = (
    "(00.000007) Version: 4.1\n(00.000650) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: no\n"
)
TAIL = (
    "(00.039687) Error (criu/cr-dump.c:1545): Dump files (pid: 6912) failed with -1\n"
    "(00.107710) Error (criu/cr-dump.c:1975): Dumping FAILED.\n"
)
TCP = "(00.039675) Error (criu/sk-inet.c:200): inet: Connected TCP socket, consider using --tcp-established option.\n"


def test_first_error_that_tells_something() -> None:
    other = "(00.05)      1: Error (criu/files.c:7): files: it cannot \x1b[2J\n"
    assert reason_in(HEAD + other + TCP + TAIL) == "files: it cannot \\x1b[2J"


def test_option_that_criu_proposes_is_placed() -> None:
    assert reason_in(HEAD + TCP + TAIL) == (
        "inet: Connected TCP socket, consider using --tcp-established option. (an option that an administrator sets in "
        "/etc/criu/runc.conf on the node (crun: crun.conf): a line 'tcp-established')"
    )


@pytest.mark.parametrize("log", ["", HEAD, HEAD + TAIL, "\x00\xff"])
def test_log_that_tells_nothing(log: str) -> None:
    assert reason_in(log) == ""


def test_log_is_read_on_the_node(api: KubeApi, nodes: MemoryNodes, connection: Connection) -> None:
    nodes.path("/run/task").mkdir(parents=True)
    nodes.path("/run/task/criu-dump.log").write_text(HEAD + TCP)
    found = read_reason(connection, "node-1", "/run/task/criu-dump.log", image="busybox", namespace="default")
    assert found.startswith("inet: Connected TCP socket")
    assert api.pods() == []


@pytest.mark.parametrize("log", ["/criu-dump.log", "/run/../criu-dump.log", "/run//criu-dump.log"])
def test_path_that_is_not_plain_is_not_followed(api: KubeApi, connection: Connection, log: str) -> None:
    assert read_reason(connection, "node-1", log, image="busybox", namespace="default") == ""
    assert not api.asked("POST", "/pods$")
