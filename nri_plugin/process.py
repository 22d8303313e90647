"""Starts one of the daemon's two processes, each as small as it can be.

``python -m nri_plugin.process session CONFIG VERSION`` is what ``nri-restore run`` turns into, and
``… worker DESCRIPTOR`` what the session starts. Neither speaks TLS nor reads bzip2 or xz: without these, which
asyncio, hashlib and shutil load but do without where Python was built without them, each has 9 MB less of resident
memory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

from nri_plugin import logs
from nri_plugin.config import load
from shared.errors import RestoreError

UNUSED: Final = ("ssl", "_hashlib", "bz2", "lzma")


def leave_out(*modules: str) -> None:
    """Makes every import of ``modules`` fail (docs.python.org/3/reference/import.html, "The module cache")."""
    for module in modules:
        sys.modules[module] = None  # type: ignore[assignment]


def load_grpc(*otherwise: str) -> None:
    """Loads grpc without asyncio, which it wants only for its second interface, grpc.aio: 3 MB less.

    Should a grpc not bear that, this process starts again as ``otherwise``, where it gets what it wants.
    """
    leave_out("asyncio")
    sys.modules["grpc.aio"] = ModuleType("grpc.aio")
    try:
        import grpc  # noqa: F401
    except Exception:
        os.execv(sys.executable, [sys.executable, "-m", "nri_plugin.process", *otherwise])


def main(role: str, *arguments: str) -> None:
    """Runs until the process's work is over; an error of ours is one line and exit status 1."""
    leave_out(*UNUSED)
    try:
        if role == "session":
            config, version = arguments
            logs.configure(load(Path(config)).log, role)
            from nri_plugin.daemon import run_daemon

            run_daemon(Path(config), version)
        else:
            if role == "worker":
                load_grpc("worker-with-asyncio", *arguments)
            from nri_plugin.worker import main as work

            (descriptor,) = arguments
            work(int(descriptor))
    except RestoreError as error:
        sys.exit(f"nri-restore: {error.reason}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
