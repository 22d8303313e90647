"""The attacks on a user's machine: an archive handed to ``kubectl restore build`` as a user hands it, bounds set."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shared.run import run
from tests.hostile.attack import Attack, Twin, Victim
from tests.hostile.in_process import forged, live_of, outcome

PROGRAM: Final = Path(sys.executable).parent / "kubectl-restore"
MEMORY_BYTES: Final = 1 << 30
"""Of address space: the interpreter and its libraries take a third of it."""
CPU_S: Final = 20
NAMED: Final = ("/etc/cron.d/x", "/etc/passwd", "/etc/shadow", "/x")
"""Files outside that attacks name."""


@dataclass
class ByCommand:
    """How it ended; empty lists are what is wanted."""

    attacks: int = 0
    accepted: list[str] = field(default_factory=list)
    effects: list[str] = field(default_factory=list)
    twins: int = 0
    twins_refused: list[str] = field(default_factory=list)
    slowest: float = 0.0


def build_all(
    attacks: Iterable[Attack], twins: Iterable[Twin], archives: Mapping[Victim, Path], base: Path
) -> ByCommand:
    """Builds an image of every forged archive below ``base``, which is empty."""
    report = ByCommand()
    work = base / "some" / "folders" / "to" / "climb" / "out" / "of"
    work.mkdir(parents=True)
    live = {victim: live_of(archive, user=victim == "user") for victim, archive in archives.items()}
    for each in (*attacks, *twins):
        path, image = work / "checkpoint.tar", work / "image.tar"
        path.write_bytes(forged(each, archives[each.victim]).tar())
        before, began = _condition(base), time.monotonic()
        status, said = _build(path, image)
        report.slowest = max(report.slowest, time.monotonic() - began)
        built = image.exists()
        image.unlink(missing_ok=True)
        report.effects += [f"{each.name}: {path}" for path in sorted(before ^ _condition(base))]
        if isinstance(each, Twin):
            report.twins += 1
            path.unlink()
            if status or not built:
                report.twins_refused.append(f"{each.name}: {said}")
            continue
        report.attacks += 1
        expected = outcome(each, archives[each.victim], live[each.victim], work)
        path.unlink()
        if status != 1 or built or expected.reason != each.reason or said != f"error: {expected.sentence}":
            report.accepted.append(f"{each.name}: {said or 'built'}, not {each.reason} ({expected.sentence})")
    return report


def _build(path: Path, image: Path) -> tuple[int, str]:
    argv: list[str | Path] = ["prlimit", f"--as={MEMORY_BYTES}", f"--cpu={CPU_S}", "env", "-C", path.parent, PROGRAM]
    argv += ["build", path, "-t", "hostile.example/a:1", "--format", "archive", "--oci-archive", image, "-q"]
    done = run(argv, timeout_s=120, check=False, env={"PATH": os.environ["PATH"], "HOME": str(path.parent)})
    return done.returncode, done.stderr.strip()


def _condition(base: Path) -> set[tuple[str, int, int, int]]:
    """Everything below ``base`` and the named files outside, as path, mode, size and time."""
    paths = [Path(folder, name) for folder, folders, files in os.walk(base) for name in (*folders, *files)]
    found = set()
    for path in (*paths, *map(Path, NAMED)):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        time_ns = 0 if path.is_dir() else status.st_mtime_ns
        found.add((str(path), status.st_mode, 0 if path.is_dir() else status.st_size, time_ns))
    return found
