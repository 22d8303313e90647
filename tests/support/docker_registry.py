"""Debian's docker-registry (distribution 2.8) on this machine, where it is installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = shutil.which("docker-registry")


@contextmanager
def docker_registry(directory: Path) -> Iterator[str]:
    """Runs a registry that keeps its data in ``directory``; gives host:port."""
    assert PROGRAM
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    config = directory / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {directory}/data}}}}\nhttp: {{addr: {host!r}}}\n"
    )
    with (directory / "registry.log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, "serve", str(config)], stdout=log, stderr=log)
        try:
            _wait(host, process)
            yield host
        finally:
            process.terminate()
            process.wait(10)


def _wait(host: str, process: subprocess.Popen[bytes]) -> None:
    address, _, port = host.partition(":")
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((address, int(port)), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("docker-registry did not start")
