"""What CRIU itself says of this node's kernel: ``criu check`` and its verdicts (criu/cr-check.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.run import run

CHECK_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class KernelCheck:
    passed: bool
    lacks: tuple[str, ...]
    """What CRIU calls absolutely required, as it says it."""
    errors: tuple[str, ...]
    """Every error, those of what only some checkpoints need (tun devices) included."""


def check_kernel() -> KernelCheck:
    """Runs ``criu check``; raises CommandFailed without a criu, Unavailable when it takes too long."""
    done = run(["criu", "check"], timeout_s=CHECK_S, check=False)
    said = (done.stderr + done.stdout).splitlines()
    errors = tuple(line.strip() for line in said if "Error (" in line)
    lacks = tuple(line for line in errors if "Error (criu/cr-check.c" in line)
    return KernelCheck(done.returncode == 0, () if done.returncode == 0 else lacks, errors)
