"""Starts one of the daemon's two processes, each as small as it can be.

``python -m nri_plugin.process session CONFIG LEVEL`` is what ``nri-restore run`` turns into, and
``… worker CONFIG DESCRIPTOR`` what the session starts. Neither speaks TLS nor reads bzip2 or xz: without these, which
asyncio, hashlib and shutil load but do without where Python was built without them, each has 9 MB less of resident
memory.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from shared.errors import RestoreError


def main(role: str, config: Path, argument: str) -> None:
    """Runs until the process's work is over; an error of ours is one line and exit status 1."""
    for module in ("ssl", "_hashlib", "bz2", "lzma"):
        # An entry without a module makes the import fail: docs.python.org/3/reference/import.html, "The module cache".
        sys.modules[module] = None  # type: ignore[assignment]
    try:
        if role == "worker":
            logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s worker: %(message)s")
            from nri_plugin.worker import main as work

            work(config, int(argument))
        else:
            logging.basicConfig(stream=sys.stderr, level=argument, format="%(levelname)s %(message)s")
            from nri_plugin.daemon import run_daemon

            run_daemon(config)
    except RestoreError as error:
        sys.exit(f"nri-restore: {error.reason}: {error}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
