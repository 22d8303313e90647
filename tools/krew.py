"""Builds what krew installs ``kubectl restore`` from, into dist/: an archive for each platform, and restore.yaml.

The archives hold the dependencies, like the deb; the manifest names where they will lie (``--releases``). Source:
krew's plugin-manifest.md and internal/index/validation.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tools.package import MACHINES, PACKAGES, PYTHONS, ROOT, files, project, vendor

KREW: Final = ROOT / "packaging/krew"
PROGRAMS: Final = {"kubectl-restore": "kubectl_restore.cli", "kubectl_complete-restore": "kubectl_restore.completion"}
HOMEPAGE: Final = "https://nri-restore.example"
"""Until the project has one."""


def archive(architecture: str, pythons: tuple[str, ...], out: Path) -> Path:
    """The archive for Linux on this architecture (Go's name for it)."""
    place = out / f"kubectl-restore-{project()['version']}-linux-{architecture}.tar.gz"
    (package,) = (each for each in PACKAGES if each.name == "kubectl-restore")
    with tempfile.TemporaryDirectory(prefix="nri-restore-krew-") as folder:
        tree = Path(folder) / "tree"
        vendor(package, MACHINES[architecture], tree / "site-packages", pythons)
        for program, module in PROGRAMS.items():
            (tree / program).write_text((KREW / "launcher").read_text().replace("MODULE", module))
            (tree / program).chmod(0o755)
        (tree / "LICENSE").write_bytes((ROOT / "LICENSE").read_bytes())
        with place.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as zipped:
            _pack(tree, zipped)
    return place


def _pack(tree: Path, out: gzip.GzipFile) -> None:
    """A reproducible tar: names sorted, no times, no owners."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name in files(tree):
            content = (tree / name).read_bytes()
            entry = tarfile.TarInfo(str(name))
            entry.size, entry.mode = len(content), (tree / name).stat().st_mode & 0o777
            tar.addfile(entry, io.BytesIO(content))


def manifest(archives: Mapping[str, Path], homepage: str, releases: str) -> dict[str, Any]:
    """restore.yaml, for archives by architecture that will lie below ``releases``."""
    document: dict[str, Any] = yaml.safe_load((KREW / "restore.yaml").read_text())
    fixed = document["spec"]
    platforms = [
        {
            "selector": {"matchLabels": {"os": "linux", "arch": architecture}},
            "uri": f"{releases.rstrip('/')}/{place.name}",
            "sha256": hashlib.sha256(place.read_bytes()).hexdigest(),
            "bin": "kubectl-restore",
        }
        for architecture, place in archives.items()
    ]
    document["spec"] = {"version": f"v{project()['version']}", "homepage": homepage, **fixed, "platforms": platforms}
    return document


class _Blocks(yaml.SafeDumper):
    """Texts of several lines as blocks."""


_Blocks.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", choices=sorted(MACHINES), action="append", help="default: all")
    parser.add_argument("--python", choices=PYTHONS, action="append", help="to bring modules for; default: all")
    parser.add_argument("--homepage", default=HOMEPAGE)
    parser.add_argument("--releases", default=f"{HOMEPAGE}/releases", help="URL of the directory with the archives")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    pythons = tuple(given.python or PYTHONS)
    made = {each: archive(each, pythons, given.out) for each in given.architecture or sorted(MACHINES)}
    for place in made.values():
        print(f"{place} ({place.stat().st_size / 1e6:.1f} MB)", flush=True)
    document = manifest(made, given.homepage, given.releases)
    (given.out / "restore.yaml").write_text(yaml.dump(document, Dumper=_Blocks, sort_keys=False, width=120))
    print(f"{given.out / 'restore.yaml'} (archives at {given.releases})")


if __name__ == "__main__":
    main()
