from __future__ import annotations

import json
import stat
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.base_image import BaseImage
from tests.support.checkpoints import SyntheticDump, config_dump, containerd
from tests.support.elf import elf
from tests.support.inspected import kubelet_spec, regular
from tests.support.kube_api import KubeApi
from tests.unit.kubectl_restore.conftest import WriteCheckpoint
from tests.unit.kubectl_restore.verbs.conftest import Run

PROGRAM = elf(size=5000)


@pytest.fixture
def run(command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kubeconfig: Path) -> Run:
    """``kubectl-restore check …`` on a machine with criu."""
    criu = tmp_path / "bin" / "criu"
    criu.parent.mkdir()
    criu.write_text("#!/bin/sh\necho Version: 4.2.1\n")
    criu.chmod(criu.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{criu.parent}:/bin:/usr/bin")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    return partial(command, "check")


@pytest.fixture
def base(tmp_path: Path) -> BaseImage:
    return BaseImage(files=[{"bin/app": PROGRAM}])


@pytest.fixture
def archive(write_checkpoint: WriteCheckpoint, base: BaseImage) -> Path:
    dump = SyntheticDump.of_processes()
    dump.images["files.img"][0] = regular(1, "/bin/app", mode=0o100600, size=5000)
    config = config_dump(rootfsImageRef=f"registry.example/app@{base.digest}")
    files = containerd(dump, config=config, spec=kubelet_spec())
    del files["rootfs-diff.tar"]
    return write_checkpoint(files)


def test_would_restore(run: Run, archive: Path, base: BaseImage, tmp_path: Path) -> None:
    status, out, err = run(archive, "--base", base.write_layout(tmp_path / "base"))
    assert (status, err) == (0, "")
    first, heads, *lines = out.splitlines()
    assert first == f"{archive}: would restore on a node like its own"
    assert heads.split() == ["LEVEL", "CODE", "FINDING"]
    assert any(line.startswith("ok      FilesMatch") for line in lines)


def test_would_fail(run: Run, archive: Path, tmp_path: Path) -> None:
    other = BaseImage(files=[{"bin/app": PROGRAM + b"longer"}])
    status, out, _ = run(archive, "--base", other.write_layout(tmp_path / "base"))
    assert status == 1
    assert out.splitlines()[2].startswith("fails   FileSizeDiffers")


def test_could_not_tell(run: Run, archive: Path) -> None:
    status, out, _ = run(archive)
    assert status == 2
    assert "unknown   BaseUnreadable" in out


def test_files_can_be_left_out(run: Run, archive: Path) -> None:
    status, out, _ = run(archive, "--base", "none")
    assert status == 0
    assert "BaseNotChecked" in out


def test_scripts_get_a_document(run: Run, archive: Path) -> None:
    status, out, _ = run(archive, "--base", "none", "-o", "json")
    document = json.loads(out)
    assert (status, document["kind"], document["verdict"]) == (0, "CheckpointCheck", "would restore")
    assert {"code", "level", "area", "sentence"} == set(document["findings"][0])
    assert yaml.safe_load(run(archive, "--base", "none", "-o", "yaml")[1]) == document


def test_no_machine_is_judged_unless_asked(run: Run, archive: Path) -> None:
    _, out, _ = run(archive, "--base", "none")
    assert "MachineNotChecked" in out
    assert "Criu" not in out


def test_this_machine_is_judged_when_asked(run: Run, archive: Path) -> None:
    status, out, _ = run(archive, "--base", "none", "--here")
    assert status == 0
    assert "CriuNewEnough" in out


def test_node_and_here_exclude_each_other(run: Run, archive: Path) -> None:
    assert run(archive, "--node", "node-1", "--here")[0] == 2


def test_node_without_facts_cannot_be_told(run: Run, archive: Path, api: KubeApi) -> None:
    status, out, _ = run(archive, "--base", "none", "--node", "node-1")
    assert status == 2
    assert " on node-1\n" in out
    assert "unknown   CriuUnknown" in out


def test_node_with_facts_can(run: Run, archive: Path, api: KubeApi) -> None:
    facts = json.dumps({"criu": "4.2", "cgroup": 2, "cpuFlags": ["avx"]})
    info = {"architecture": "amd64", "kernelVersion": "6.18.0", "operatingSystem": "linux"}
    api.create(
        "Node",
        "node-2",
        metadata={"name": "node-2", "annotations": {"nri-restore/node-facts": facts}},
        status={"nodeInfo": info},
    )
    assert run(archive, "--base", "none", "--node", "node-2")[0] == 0


def test_node_that_is_not_there(run: Run, archive: Path, api: KubeApi) -> None:
    status, out, err = run(archive, "--node", "other")
    assert (status, out) == (1, "")
    assert "other" in err
    assert err.count("\n") == 1


def manifest(**container: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "app-pod"},
        "spec": {
            "runtimeClassName": "nri-restore",
            "containers": [{"name": "app", "image": "registry.example/app:1", **container}],
        },
    }


def test_pod_of_a_file_or_the_input(run: Run, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(yaml.safe_dump(manifest()))
    status, out, _ = run(archive, "--base", "none", "-f", path)
    assert "PodFits" in out
    assert status == 0
    path.write_text(yaml.safe_dump(manifest(tty=True)))
    status, out, _ = run(archive, "--base", "none", "-f", path)
    assert "fails     TtyDiffers" in out or "fails   TtyDiffers" in out
    assert status == 1
    with path.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert "TtyDiffers" in run(archive, "--base", "none", "-f", "-")[1]


def test_pod_of_the_cluster(run: Run, archive: Path, api: KubeApi) -> None:
    api.add_pod("app-pod", "app", runtimeClassName="nri-restore")
    status, out, _ = run(archive, "--base", "none", "--pod", "app-pod")
    assert "PodFits" in out
    assert status == 0
    assert run(archive, "--base", "none", "--pod", "pod/app-pod")[0] == 0
    status, _, err = run(archive, "--pod", "other")
    assert status == 1
    assert err.startswith('error: there is no pod "other" in namespace default')


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not YAML"),
        ("a: 1\n---\nb: 2\n", "2 documents"),
        ("", "0 documents"),
        ("kind: Service\n", "Service"),
        ("- 1\n", "kind"),
        ("!!python/object/apply:os.system [id]\n", "not YAML"),
        ("kind: Pod\nspec: {containers: [{name: a}, {name: b}]}\n", "a, b"),
        ("kind: Pod\nspec: 5\n", "spec is 5, not a mapping"),
        ("\x00", "not YAML"),
        ("# " + "x" * (4 << 20), "more than 4 MiB"),
    ],
)
def test_manifest_that_is_none(run: Run, archive: Path, tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(content)
    status, out, err = run(archive, "--base", "none", "-f", path)
    assert (status, out) == (1, "")
    assert words in err
    assert err.count("\n") == 1


def test_manifest_that_is_not_there(run: Run, archive: Path) -> None:
    status, _, err = run(archive, "-f", "/nowhere/pod.yaml")
    assert (status, err) == (1, "error: cannot read the manifest /nowhere/pod.yaml: No such file or directory\n")


def test_one_pod_at_a_time(run: Run, archive: Path) -> None:
    status, _, err = run(archive, "-f", "x", "--pod", "y")
    assert status == 2
    assert "one of --filename and --pod" in err


def test_source_that_is_none_fails(run: Run) -> None:
    status, out, err = run("/nowhere.tar")
    assert (status, out) == (1, "")
    assert err == "error: there is no file /nowhere.tar\n"


def test_damaged_checkpoint_is_a_finding(run: Run, write_checkpoint: WriteCheckpoint) -> None:
    path = write_checkpoint(containerd() | {"checkpoint/pages-1.img": b""})
    status, out, err = run(path, "--base", "none", "-o", "json")
    assert (status, err) == (1, "")
    assert [finding["code"] for finding in json.loads(out)["findings"]] == ["CheckpointDamaged"]


def test_layered_image_is_its_own_root(run: Run, command: Run, archive: Path, base: BaseImage, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    words = ["-t", "x.example/ck:1", "--format", "layered", "--oci-layout", layout, "-q"]
    assert command("build", archive, *words, "--base", base.write_layout(tmp_path / "base"))[0] == 0
    status, out, err = run(f"oci:{layout}")
    assert (status, err) == (0, "")
    assert "FilesMatch" in out
