"""Wheels of other projects, unpacked for the Pythons they shall run on; kept for a day in the cache of test nodes."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shared.run import run
from tests.e2e.node.places import cache, locked

_OLDEST_GLIBC, _NEWEST_GLIBC = 17, 41
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
"""elf(5), e_machine."""
_KEPT_S = 86400
"""Newer releases of what we depend on come into the packages after this long."""


def wheels(requirements: Sequence[str], machine: str, pythons: Sequence[str]) -> Path:
    """A folder with what pip installs for each Python version over each other, stripped; nobody may change it.

    What differs between versions is extension modules, and their file names say for which they are.
    """
    wanted = "\n".join([machine, *pythons, "", *sorted(requirements), Path(__file__).read_text()])
    place = cache() / "wheels" / hashlib.sha256(wanted.encode()).hexdigest()[:12]
    with locked(place.with_name(f"{place.name}.lock")):
        if place.is_dir() and place.stat().st_mtime > time.time() - _KEPT_S:
            return place
        with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as folder:
            made = Path(folder) / "all"
            _install(requirements, machine, pythons, Path(folder), made)
            shutil.rmtree(place, ignore_errors=True)
            made.rename(place)
    return place


def install(requirements: Sequence[str], machine: str, python: str, target: Path) -> None:
    """The wheels of one Python version (``3.13``), as they are, and not compiled."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1)]
    platforms = [word for tag in (*tags, f"manylinux2014_{machine}") for word in ("--platform", tag)]
    run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
         "--only-binary=:all:", "--target", target, "--python-version", python, *platforms, *requirements],
        timeout_s=600,
    )  # fmt: skip


def _install(requirements: Sequence[str], machine: str, pythons: Sequence[str], folder: Path, made: Path) -> None:
    with ThreadPoolExecutor(len(pythons)) as threads:
        list(threads.map(lambda version: install(requirements, machine, version, folder / version), pythons))
    for version in pythons:
        shutil.copytree(folder / version, made, dirs_exist_ok=True)
    for each in ("bin", "share"):
        shutil.rmtree(made / each, ignore_errors=True)
    for pattern in ("*/tests", "*/test"):
        for tests in made.glob(pattern):
            shutil.rmtree(tests)
    libraries = [each for each in made.rglob("*") if each.is_file() and ".so" in each.suffixes]
    for each in libraries:
        check_machine(each, machine)
    run([f"{machine}-linux-gnu-strip", "--strip-unneeded", *libraries], timeout_s=120)


def check_machine(library: Path, machine: str) -> None:
    """Ends the program unless the library is for ``machine``."""
    found = int.from_bytes(library.read_bytes()[18:20], "little")
    if found != _ELF_MACHINES[machine]:
        raise SystemExit(f"{library} is for the ELF machine {found}, not for {machine}")
