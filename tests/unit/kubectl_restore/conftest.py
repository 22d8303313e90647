from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from shared.compression import Compression
from tests.support.checkpoints import containerd, tar_of
from tests.support.fake_registry import FakeRegistry

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
