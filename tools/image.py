"""Builds the daemon's container image without a container tool: dist/nri-restore-VERSION.oci.tar, or pushes it.

The image holds one tree, ``/opt/nri-restore/<version>-<digest>``: the program, its dependencies, and a Python with its
own loader and libraries, which so also runs on nodes that have none. The installer copies it to the same place there.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import tarfile
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from kubectl_restore.image.access import Access
from kubectl_restore.image.destination import Destination
from kubectl_restore.image.layers import Layer
from kubectl_restore.image.oci_archive import ArchiveDestination
from kubectl_restore.image.progress import Silent
from kubectl_restore.image.registry_images import RegistryDestination
from kubectl_restore.image.source import FileRange
from nri_plugin.daemonset.places import CURRENT, PLACE, TMPFILES
from shared import oci
from shared.compression import Compression
from shared.run import run
from tests.e2e.node.apt import read_apt
from tests.e2e.node.places import cache, locked
from tools.package import MACHINES, PACKAGES, ROOT, project, vendor
from tools.python_tree import add_libraries, add_licences, compile_all, copy_python, version_of

SUITE: Final = "trixie"
_EPOCH: Final = "1970-01-01T00:00:00Z"
_PROGRAM = """\
#!/bin/sh
PYTHONPATH={home}/site-packages PYTHONNOUSERSITE=1 PYTHONSAFEPATH=1 exec {home}/bin/python3 -m nri_plugin.cli "$@"
"""


def make_tree(base: Path, tree: Path) -> None:
    """Everything below ``CURRENT``; ``base`` is a Debian root with python3."""
    copy_python(base, tree)
    vendor(PACKAGES[0], platform.machine(), tree / "site-packages", pythons=[version_of(base)])
    add_libraries(base, tree, CURRENT)
    compile_all(tree, CURRENT)
    program = tree / "bin/nri-restore"
    program.write_text(_PROGRAM.format(home=CURRENT))
    program.chmod(0o755)
    add_licences(base, tree)
    shutil.copyfile(ROOT / "packaging/copyright", tree / "copyright")
    shutil.copyfile(ROOT / "packaging/systemd/nri-restore.tmpfiles", tree / TMPFILES.name)


def name_of(tree: Path) -> str:
    """The version and a digest of everything in the tree."""
    digest = hashlib.sha256()
    for each in sorted(each for each in tree.rglob("*") if each.is_file()):
        digest.update(f"{each.relative_to(tree)}\0{each.stat().st_mode & 0o111}\0".encode())
        digest.update(hashlib.sha256(each.read_bytes()).digest())
    return f"{project()['version']}-{digest.hexdigest()[:12]}"


def write_layer(tree: Path, out: Path) -> None:
    """A reproducible tar: the tree at its place, the link that names it, and an empty /tmp."""
    name, place = name_of(tree), str(PLACE).lstrip("/")

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o111 else 0o644
        return entry

    with tarfile.open(out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder, mode in (("opt", 0o755), (place, 0o755), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        # add() goes through each folder in the order of its names.
        tar.add(tree, f"{place}/{name}", filter=plain)
        link = tarfile.TarInfo(str(CURRENT).lstrip("/"))
        link.type, link.linkname, link.mode = tarfile.SYMTYPE, name, 0o777
        tar.addfile(link)


def config(diff_id: str) -> dict[str, Any]:
    environment = {
        "PATH": f"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{CURRENT}/bin",
        "PYTHONPATH": f"{CURRENT}/site-packages",
        "PYTHONNOUSERSITE": "1",
        "PYTHONSAFEPATH": "1",
    }
    here = next(name for name, machine in MACHINES.items() if machine == platform.machine())
    return {
        "architecture": here,
        "os": "linux",
        "config": {
            "Env": [f"{key}={value}" for key, value in environment.items()],
            "Entrypoint": [f"{CURRENT}/bin/python3", "-m", "nri_plugin.daemonset"],
            "Cmd": ["run"],
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "tools/image.py", "created": _EPOCH}],
        "created": _EPOCH,
    }


def write_image(layer: Path, destination: AbstractContextManager[Destination]) -> int:
    """Returns the bytes of all blobs."""
    with destination as out:
        plain = Layer(FileRange.whole(layer), Compression.NONE, "nri-restore")
        written = out.write(plain.compressed(Compression.GZIP))
        document = oci.encode(config(written.diff_id))
        described = oci.Descriptor(oci.CONFIG, oci.digest_of(document), len(document))
        manifest = oci.encode(oci.Manifest(described, (written.descriptor,)).as_json())
        out.finish(document, manifest)
    return written.descriptor.size + len(document) + len(manifest)


def debian() -> Path:
    """A Debian root with python3, from the cache or made; its packages are checked against the archive's key."""
    place = cache() / "image-base" / SUITE
    with locked(place.with_name(f"{SUITE}.lock")):
        if not place.is_dir():
            print(f"making a Debian root of {SUITE} in {place}", flush=True)
            with tempfile.TemporaryDirectory(prefix=f".{SUITE}-", dir=place.parent) as folder:
                apt, root = read_apt(), Path(folder) / "root"
                script = SUITE if Path("/usr/share/debootstrap/scripts", SUITE).exists() else "sid"
                words = ["--variant=minbase", "--include=python3", SUITE, root, apt.mirror, script]
                run(["debootstrap", *words], timeout_s=900, env={**os.environ, **apt.proxy})
                root.rename(place)
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, help=f"a Debian root with python3; default: {SUITE}, by debootstrap")
    parser.add_argument("--reference", default=f"localhost/nri-restore:{project()['version']}", help="the image's name")
    parser.add_argument("--push", action="store_true", help="to the registry that the name begins with")
    parser.add_argument("--plain-http", action="store_true", help="push without TLS")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    given = parser.parse_args()
    reference = oci.parse_reference(given.reference)
    archive = given.out / f"nri-restore-{project()['version']}.oci.tar"
    with tempfile.TemporaryDirectory(prefix="nri-restore-image-") as folder:
        make_tree(given.base or debian(), Path(folder) / "tree")
        write_layer(Path(folder) / "tree", Path(folder) / "layer.tar")
        destination: AbstractContextManager[Destination]
        if given.push:
            access = Access("always" if given.plain_http else "never")
            destination = RegistryDestination(reference, access, Silent(), base=None)
        else:
            given.out.mkdir(parents=True, exist_ok=True)
            destination = ArchiveDestination(archive, reference, Silent())
        size = write_image(Path(folder) / "layer.tar", destination)
    print(f"{reference if given.push else archive} ({size / 1e6:.1f} MB)", flush=True)


if __name__ == "__main__":
    main()
