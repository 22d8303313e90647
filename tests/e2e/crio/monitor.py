"""Runs conmon as CRI-O does (internal/oci/runtime_oci.go CreateContainer) and prints what it reports.

Usage: monitor.py CONMON ARGUMENT... -- of CRI-O's process only the two pipes and the environment are played.
"""

from __future__ import annotations

import os
import subprocess
import sys

TIMEOUT_S = 60


def main(argv: list[str]) -> None:
    reports, sync = os.pipe()
    start, begins = os.pipe()
    environment = {"CRI_O_EXTERNAL": "1", "PATH": os.environ["PATH"], "_OCI_SYNCPIPE": "3", "_OCI_STARTPIPE": "4"}

    def descriptors() -> None:
        spare = [os.dup(each) for each in (sync, start)]
        for number, each in zip((3, 4), spare, strict=True):
            os.dup2(each, number)

    conmon = subprocess.Popen(
        argv,
        env=environment,
        preexec_fn=descriptors,
        pass_fds=(3, 4),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(sync)
    os.close(start)
    os.write(begins, b"\0")
    conmon.wait(TIMEOUT_S)
    with os.fdopen(reports) as said:
        print(said.readline())


main(sys.argv[1:])
