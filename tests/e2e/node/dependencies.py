"""The daemon's Python dependencies for a node's own Python, installed once from the host: nodes need no network."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import tempfile
import tomllib
from functools import partial
from pathlib import Path
from typing import Final

from shared.run import run
from tests.e2e.node.places import CHECKOUT, cache, made_once
from tools.vendor import install

INSIDE: Final = Path("/opt/nri-restore/dependencies")
"""Where a node sees them."""

_NOT_ON_NODES: Final = {"isal", "kubernetes", "websocket-client"}


def requirements() -> list[str]:
    """pyproject's dependencies without those only kubectl-restore uses."""
    listed: list[str] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"]
    return sorted(item for item in listed if re.split(r"[^A-Za-z0-9_-]", item)[0] not in _NOT_ON_NODES)


def python_version(root: Path) -> str:
    """``3.13``: what /usr/bin/python3 of a root is."""
    name = (root / "usr/bin/python3").readlink().name
    return name.removeprefix("python")


def dependencies(root: Path) -> Path:
    """A folder for PYTHONPATH with the daemon's dependencies for the Python of ``root``, byte-compiled by it."""
    version, machine = python_version(root), platform.machine()
    wanted = requirements()
    key = hashlib.sha256("\n".join([version, machine, *wanted]).encode()).hexdigest()[:12]
    return made_once(
        cache() / "dependencies" / f"python{version}-{key}", partial(_install, root, version, machine, wanted)
    )


def _install(root: Path, version: str, machine: str, wanted: list[str], place: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        folder.chmod(0o755)
        install(wanted, machine, version, folder)
        # Compiled at the path nodes see, so that tracebacks name it.
        compile_there = 'mount --bind "$1" "$0$2" && exec chroot "$0" /usr/bin/python3 -m compileall -q "$2"'
        run(["unshare", "--mount", "sh", "-c", compile_there, root, folder, INSIDE], timeout_s=300)
        folder.rename(place)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
