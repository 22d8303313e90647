"""Where the test nodes keep what they build and run."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]


def cache() -> Path:
    """The one folder that holds all base roots, Python dependencies and running nodes; ``make clean`` removes it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nri-restore"


def runs() -> Path:
    """One folder per running node and network; whatever lies here after its owner died is swept."""
    return cache() / "runs"


def claim(folder: Path, owner: str) -> None:
    """Makes the folder of a run together with its owner's record, so that no sweep ever sees one without the other."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    (new / "owner").write_text(owner)
    new.chmod(0o755)
    new.rename(folder)


def sample(name: str) -> Path:
    """A file of the folder beside the checkout that holds real checkpoints; it may not exist."""
    return CHECKOUT.parent / "shared/data" / name


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds ``path`` against every other process of this machine; freed by the kernel when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_once(place: Path, make: Callable[[Path], None]) -> Path:
    """``place``, which ``make`` brings there in one step when it is missing; one process of this machine at a time."""
    if not place.exists():
        with locked(place.with_name(f"{place.name}.lock")):
            if not place.exists():
                make(place)
    return place
