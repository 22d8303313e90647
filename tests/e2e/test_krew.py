"""What krew would install, unpacked as krew does on a machine where nothing of this checkout can be found."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.run import run
from tests.e2e.kubectl import kubectl
from tests.e2e.node.image import ARCHITECTURE
from tests.e2e.node.places import CHECKOUT
from tests.support.checkpoints import containerd, tar_of

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the archive for this machine and its Python, and the manifest, as `make package` makes them."""
    out = tmp_path_factory.mktemp("krew")
    words = ["--architecture", ARCHITECTURE[platform.machine()], "--python", PYTHON, "--out", out]
    where = ["--releases", "https://downloads.example/v0/", "--homepage", "https://project.example"]
    env = {"PYTHONPATH": str(CHECKOUT), "HOME": "/root", "PATH": "/usr/bin:/bin"}
    run([sys.executable, "-m", "tools.krew", *words, *where], timeout_s=400, env=env)
    return out


@pytest.fixture(scope="session")
def manifest(built: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((built / "restore.yaml").read_text())
    return document


def test_manifest_is_what_krew_accepts(manifest: dict[str, Any], built: Path) -> None:
    """The rules of krew's internal/index/validation/validate.go, and of its index for plugins."""
    assert manifest["apiVersion"] == "krew.googlecontainertools.github.com/v1alpha2"
    assert manifest["kind"] == "Plugin"
    assert manifest["metadata"] == {"name": "restore"}
    spec = manifest["spec"]
    assert set(spec) == {"version", "homepage", "shortDescription", "description", "caveats", "platforms"}
    assert re.fullmatch(r"v\d+\.\d+\.\d+", spec["version"])
    assert spec["homepage"] == "https://project.example"
    assert spec["shortDescription"] and not re.search(r"[\r\n]", spec["shortDescription"])
    (one,) = spec["platforms"]
    assert set(one) == {"selector", "uri", "sha256", "bin"}
    assert one["selector"] == {"matchLabels": {"os": "linux", "arch": ARCHITECTURE[platform.machine()]}}
    folder, _, name = one["uri"].rpartition("/")
    assert folder == "https://downloads.example/v0"
    assert one["sha256"] == hashlib.sha256((built / name).read_bytes()).hexdigest()


@dataclass(frozen=True)
class Machine:
    """A PATH and nothing else."""

    programs: Path
    home: Path

    def link(self, name: str, target: Path) -> None:
        (self.programs / name).unlink(missing_ok=True)
        (self.programs / name).symlink_to(target)

    def __call__(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        env = {"PATH": str(self.programs), "HOME": str(self.home)}
        command = [self.programs / words[0], *words[1:]]
        return subprocess.run(command, env=env, cwd=self.home, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="session")
def store(built: Path, manifest: dict[str, Any]) -> Path:
    """The archive, unpacked."""
    folder = built / "store/restore" / manifest["spec"]["version"]
    folder.mkdir(parents=True)
    (one,) = manifest["spec"]["platforms"]
    with tarfile.open(built / one["uri"].rpartition("/")[2]) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture
def machine(store: Path, manifest: dict[str, Any], tmp_path: Path) -> Machine:
    """The plugin linked as krew does it (internal/installation/install.go), kubectl beside it."""
    machine = Machine(tmp_path / "bin", tmp_path)
    machine.programs.mkdir()
    (one,) = manifest["spec"]["platforms"]
    machine.link("kubectl-restore", store / one["bin"])
    machine.link("kubectl_complete-restore", store / "kubectl_complete-restore")
    machine.link("kubectl", kubectl())
    machine.link("readlink", Path("/usr/bin/readlink"))
    # The Python that .venv was made of, without what is installed in .venv.
    machine.link("python3", Path(sys.executable).resolve())
    return machine


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    archive = tmp_path / "checkpoint.tar"
    archive.write_bytes(tar_of(containerd()))
    return archive


def test_kubectl_runs_the_plugin(machine: Machine, checkpoint: Path) -> None:
    listed = machine("kubectl", "plugin", "list")
    assert str(machine.programs / "kubectl-restore") in listed.stdout, listed.stderr
    helped = machine("kubectl", "restore", "--help")
    assert helped.returncode == 0, helped.stderr
    assert "Package a checkpoint as an OCI image." in helped.stdout
    inspected = machine("kubectl", "restore", "inspect", checkpoint, "-o", "yaml")
    assert inspected.returncode == 0, inspected.stderr
    assert yaml.safe_load(inspected.stdout)["engine"]["name"] == "containerd"
    build = ("build", checkpoint, "-t", "here:1", "--format", "archive", "--compress", "gzip")
    built = machine("kubectl", "restore", *build, "--oci-layout", machine.home / "out")
    assert built.returncode == 0, built.stderr
    assert json.loads((machine.home / "out/index.json").read_text())["manifests"]
    completed = machine("kubectl", "__complete", "restore", "insp")
    assert completed.stdout.startswith("inspect\t"), completed.stderr


def test_machine_without_a_fitting_python_is_told_so(machine: Machine, checkpoint: Path) -> None:
    machine.link("python3", Path("/bin/false"))
    done = machine("kubectl", "restore", "inspect", checkpoint)
    assert done.returncode == 1
    assert done.stderr.startswith("error: kubectl restore needs Python 3.11 to 3.14 and finds none in PATH")


def test_next_fitting_python_is_taken(machine: Machine) -> None:
    machine.link("python3", Path("/bin/false"))
    machine.link(f"python{PYTHON}", Path(sys.executable).resolve())
    assert machine("kubectl", "restore", "--help").returncode == 0
