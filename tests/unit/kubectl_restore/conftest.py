from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kubectl_restore.kube.connection import Connection, connect
from kubectl_restore.kube.flags import ClusterFlags
from shared.compression import Compression
from tests.support.checkpoints import containerd, tar_of
from tests.support.fake_registry import FakeRegistry
from tests.support.kube_api import KubeApi
from tests.support.kube_memory import MemoryNodes

_resolve = socket.getaddrinfo


WriteCheckpoint = Callable[..., Path]
StartRegistry = Callable[..., FakeRegistry]


@pytest.fixture(autouse=True)
def _no_logins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The developer's own registry logins and proxies stay out of every test."""
    for name in (
        "REGISTRY_AUTH_FILE",
        "DOCKER_CONFIG",
        "XDG_CONFIG_HOME",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "SSL_CERT_FILE",
        "KUBECONFIG",
        "KUBERNETES_SERVICE_HOST",
        "XDG_CACHE_HOME",
        "TMPDIR",
    ):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of other machines do not resolve: no test leaves this one, nor waits for a resolver."""

    def resolve(host: str, *rest: Any, **more: Any) -> Any:
        if host.strip("[]") not in ("127.0.0.1", "localhost", "::1", "0.0.0.0"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return _resolve(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.fixture
def write_checkpoint(tmp_path: Path) -> WriteCheckpoint:
    """Writes a checkpoint archive, by default containerd's, and gives its path."""

    def write(files: Mapping[str, bytes] | None = None, compression: Compression = Compression.NONE) -> Path:
        path = tmp_path / "checkpoint.tar"
        path.write_bytes(tar_of(files or containerd(), compression))
        return path

    return write


@pytest.fixture
def start_registry() -> Iterator[StartRegistry]:
    """Starts fake registries that end with the test."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(FakeRegistry(**settings))


@pytest.fixture
def nodes(tmp_path: Path) -> MemoryNodes:
    """What is behind ``api``; set its faults before or during the test."""
    return MemoryNodes(tmp_path / "node")


@pytest.fixture
def api(nodes: MemoryNodes) -> Iterator[KubeApi]:
    """A stub API server with TLS and one node, node-1."""
    with KubeApi(nodes) as api:
        yield api


@pytest.fixture
def kubeconfig(api: KubeApi, tmp_path: Path) -> Path:
    return api.write_kubeconfig(tmp_path / "kubeconfig")


@pytest.fixture
def connection(kubeconfig: Path) -> Connection:
    """To ``api``, as its administrator, in the namespace default."""
    return connect(ClusterFlags(kubeconfig=kubeconfig))
