"""Builds deb and rpm of both programs from one staged tree each, into dist/.

Dependencies are vendored from wheels below /usr/lib/NAME/site-packages, for every Python version that we support.
Nothing is downloaded at installation.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import platform
import re
import shutil
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from shared.run import run
from tools.man import pages
from tools.vendor import wheels

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
DEB_COMPRESSION = {"small": ["-Zxz"], "fast": ["-Zgzip", "-z1"]}
RPM_COMPRESSION = {"small": "w6T0.xzdio", "fast": "w1.gzdio"}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
RPM_WORDS = {
    "postinst": 'set -- configure "$([ "$1" = 1 ] || echo old)"',
    # The older package's scriptlet comes last on an upgrade, when all is the newer one's.
    "prerm": '[ "$1" = 0 ] || exit 0\nset -- remove',
    "postrm": 'set -- "$([ "$1" = 0 ] && echo remove || echo upgrade)"',
}
"""What the deb's scripts are called with, from the number of packages that an rpm's scriptlet is given."""
DESCRIPTION = """\
An unmodified container runtime resumes checkpointed containers,
processes and memory included. Python dependencies are below /usr/lib
and used by nothing else."""
MAINTAINER = "nri-restore maintainers <nri-restore@localhost.localdomain>"


@dataclass(frozen=True)
class Package:
    name: str
    modules: tuple[str, ...]
    without: frozenset[str]
    """Dependencies of the project that this program does not use."""
    programs: dict[str, str]
    """Path of each program, and the module it runs."""
    manual: str
    """What tools/man.py calls the program."""
    summary: str
    depends: str
    recommends: str
    never_imported: tuple[str, ...] = ()
    """Folders of its dependencies, and of theirs, that it makes no use of."""


PACKAGES = (
    Package(
        "nri-restore", ("shared", "nri_plugin"),
        frozenset({"isal", "kubernetes", "websocket-client"}),
        {"usr/bin/nri-restore": "nri_plugin.cli"}, "nri-restore", "restores checkpointed containers on this node",
        "python3 (>= 3.11), python3 (<< 3.15), mount, libc6", "criu, runc, iptables | nftables",
    ),
    Package(
        "kubectl-restore", ("shared", "kubectl_restore"), frozenset({"cryptography", "grpcio", "PyJWT", "tomlkit"}),
        {
            "usr/bin/kubectl-restore": "kubectl_restore.cli",
            "usr/bin/kubectl_complete-restore": "kubectl_restore.completion",
        },
        "kubectl restore", "packages container checkpoints as images and restores them in a cluster",
        "python3 (>= 3.11), python3 (<< 3.15), libc6", "kubectl",
        # The client of the Kubernetes API for asyncio is a third of it all.
        ("kubernetes/aio", "aiohttp", "aiohttp_retry", "aiosignal", "aiohappyeyeballs", "attr", "attrs", "frozenlist",
         "multidict", "propcache", "tzdata", "yarl"),
    ),
)  # fmt: skip


def project() -> dict[str, list[str]]:
    document: dict[str, dict[str, list[str]]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return document["project"]


def vendor(package: Package, machine: str, place: Path, pythons: Sequence[str] = PYTHONS) -> None:
    """What the package's programs import: other projects' wheels and our own modules."""
    wanted = [each for each in project()["dependencies"] if re.split(r"[^A-Za-z0-9_-]", each)[0] not in package.without]
    shutil.copytree(wheels(wanted, machine, pythons), place)
    for each in package.never_imported:
        for found in (place / each, *place.glob(f"{each}-*.dist-info")):
            shutil.rmtree(found)
    for each in place.rglob("*.py"):
        text = each.read_bytes()
        if text.startswith(b"#!"):
            each.write_bytes(text.partition(b"\n")[2])  # a module, not a program
    if package.name == "nri-restore":
        # A kubeconfig of a few lines is all it reads: the parser in C would add to its size for nothing.
        for each in (place / "yaml").glob("_yaml*.so"):
            each.unlink()
    own = shutil.ignore_patterns("__pycache__", "*.pyi", "*.proto")
    for module in package.modules:
        shutil.copytree(ROOT / module, place / module, ignore=own)
    record = place / f"nri_restore-{project()['version']}.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: nri-restore\nVersion: {project()['version']}\n")
    for each in place.rglob("*"):
        script = each.is_file() and each.read_bytes()[:2] == b"#!"
        each.chmod(0o755 if each.is_dir() or script else 0o644)


def stage(package: Package, machine: str, tree: Path, pythons: Sequence[str] = PYTHONS) -> None:
    """Every file of the package, at its place."""
    home = f"/usr/lib/{package.name}/site-packages"
    vendor(package, machine, tree / home.lstrip("/"), pythons)

    def put(path: str, text: str | bytes, mode: int = 0o644) -> None:
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        file.chmod(mode)

    for path, module in package.programs.items():
        # Not isolated (-I): the daemon's own processes inherit where the modules are.
        environment = f"PYTHONPATH={home} PYTHONNOUSERSITE=1 PYTHONSAFEPATH=1"
        program = f"import sys; sys.argv[0] = '{Path(path).name}'; from {module} import main; main()"
        put(path, f'#!/bin/sh\n{environment} exec /usr/bin/python3 -c "{program}" "$@"\n', 0o755)
    for name, text in pages(package.manual, package.summary, str(project()["version"])):
        put(f"usr/share/man/man{name[-1]}/{name}.gz", gzip.compress(text.encode(), 9, mtime=0))
    put(f"usr/share/doc/{package.name}/copyright", (ROOT / "packaging/copyright").read_text())
    entry = f"{package.name} ({project()['version']}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n"
    changelog = f"{entry} -- {MAINTAINER}  {formatdate(0)}\n".encode()
    put(f"usr/share/doc/{package.name}/changelog.gz", gzip.compress(changelog, 9, mtime=0))
    put(f"usr/share/lintian/overrides/{package.name}", (ROOT / "packaging/deb/overrides").read_text())
    if package.name == "nri-restore":
        systemd = ROOT / "packaging/systemd"
        put("usr/lib/systemd/system/nri-restore.service", (systemd / "nri-restore.service").read_text())
        put("usr/lib/tmpfiles.d/nri-restore.conf", (systemd / "nri-restore.tmpfiles").read_text())
        for each in sorted((ROOT / "packaging/monitoring").iterdir()):
            put(f"usr/share/doc/nri-restore/monitoring/{each.name}", each.read_text())
        put("etc/nri-restore/config.toml", (ROOT / "packaging/config.toml").read_text())
    for each in (tree, *tree.rglob("*")):
        if each.is_dir():
            each.chmod(0o755)


def deb(package: Package, architecture: str, tree: Path, out: Path, compression: str) -> Path:
    control = tree / "DEBIAN"
    control.mkdir()
    size = sum(each.stat().st_size for each in tree.rglob("*") if each.is_file()) >> 10
    fields = {
        "Package": package.name, "Version": project()["version"], "Architecture": architecture,
        "Maintainer": MAINTAINER, "Installed-Size": size, "Section": "admin", "Priority": "optional",
        "Depends": package.depends, "Recommends": package.recommends,
        "Description": "\n ".join([package.summary, *DESCRIPTION.splitlines()]),
    }  # fmt: skip
    (control / "control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    for script in ("postinst", "prerm", "postrm"):
        source = ROOT / "packaging/deb" / f"{package.name}.{script}"
        if source.exists():
            shutil.copyfile(source, control / script)
            (control / script).chmod(0o755)
    if (tree / "etc").exists():
        (control / "conffiles").write_text(
            "".join(f"/{each.relative_to(tree)}\n" for each in sorted((tree / "etc").rglob("*")) if each.is_file())
        )
    listed = "".join(
        f"{hashlib.md5((tree / each).read_bytes(), usedforsecurity=False).hexdigest()}  {each}\n"
        for each in files(tree)
        if each.parts[0] not in {"DEBIAN", "etc"}
    )
    (control / "md5sums").write_text(listed)
    place = out / f"{package.name}_{project()['version']}_{architecture}.deb"
    run(["dpkg-deb", "--root-owner-group", *DEB_COMPRESSION[compression], "--build", tree, place], timeout_s=1800)
    shutil.rmtree(control)
    return place


def rpm(package: Package, machine: str, tree: Path, out: Path, compression: str) -> Path:
    """The same tree; scriptlets are the deb's, called with the words that fit."""
    shutil.rmtree(tree / "usr/share/lintian")
    scripts = {}
    for name, words in RPM_WORDS.items():
        source = ROOT / "packaging/deb" / f"{package.name}.{name}"
        scripts[name] = f"{words}\n{source.read_text()}" if source.exists() else ""
    home = Path("usr/lib", package.name)
    own = [each for each in files(tree) if home not in each.parents]
    listed = [f"/{home}", *(f"{'%config(noreplace) ' if each.parts[0] == 'etc' else ''}/{each}" for each in own)]
    documents = tree / "usr/share/doc" / package.name
    folders = [*tree.glob("etc/*"), documents, *(each for each in documents.rglob("*") if each.is_dir())]
    listed += [f"%dir /{each.relative_to(tree)}" for each in folders]
    spec = f"""\
%global __os_install_post %{{nil}}
%global debug_package %{{nil}}
%global _build_id_links none
Name: {package.name}
Version: {project()["version"]}
Release: 1
Summary: {package.summary[0].upper()}{package.summary[1:]}
License: Apache-2.0
Group: System/Base
Packager: {MAINTAINER}
AutoReqProv: no
Requires: python3 >= 3.11, python3 < 3.15, util-linux
%description
{DESCRIPTION}
%install
mkdir -p %{{buildroot}} && cp -a {tree}/. %{{buildroot}}/
%post
{scripts["postinst"]}
%preun
{scripts["prerm"]}
%postun
{scripts["postrm"]}
%files
{chr(10).join(listed)}
%changelog
* {time.strftime("%a %b %d %Y")} {MAINTAINER} - {project()["version"]}-1
- See CHANGELOG.md.
"""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "spec").write_text(spec)
        run(
            ["rpmbuild", "-bb", "--target", machine, "--buildroot", f"{folder}/root", "--define", f"_topdir {folder}",
             "--define", f"_rpmdir {out}", "--define", "_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm",
             "--define", f"_binary_payload {RPM_COMPRESSION[compression]}", f"{folder}/spec"],
            timeout_s=1800,
        )  # fmt: skip
    return out / f"{package.name}-{project()['version']}-1.{machine}.rpm"


def files(tree: Path) -> list[Path]:
    own = [each for each in sorted(tree.rglob("*")) if each.is_file()]
    return [each.relative_to(tree) for each in own]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", choices=sorted(MACHINES), action="append", help="default: this machine's")
    parser.add_argument("--format", choices=["deb", "rpm"], action="append", help="default: both")
    parser.add_argument("--package", choices=[each.name for each in PACKAGES], action="append", help="default: both")
    parser.add_argument("--python", choices=PYTHONS, action="append", help="default: all that we support")
    parser.add_argument("--compress", choices=sorted(DEB_COMPRESSION), default="small")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    given = parser.parse_args()
    here = next(name for name, machine in MACHINES.items() if machine == platform.machine())
    given.out.mkdir(parents=True, exist_ok=True)
    for architecture in given.architecture or [here]:
        for package in PACKAGES:
            if package.name not in (given.package or [package.name]):
                continue
            with tempfile.TemporaryDirectory(prefix="nri-restore-package-") as folder:
                tree = Path(folder) / "tree"
                stage(package, MACHINES[architecture], tree, given.python or PYTHONS)
                for form in given.format or ["deb", "rpm"]:
                    if form == "deb":
                        made = deb(package, architecture, tree, given.out, given.compress)
                    else:
                        made = rpm(package, MACHINES[architecture], tree, given.out, given.compress)
                    print(f"{made} ({made.stat().st_size / 1e6:.1f} MB)", flush=True)


if __name__ == "__main__":
    main()
