from __future__ import annotations

import json
import random
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from shared.compression import Compression
from tests.support.base_image import BaseImage
from tests.support.checkpoints import containerd, tar_of, write_directory
from tests.support.inspected import rich_dump
from tests.unit.kubectl_restore.conftest import StartRegistry, WriteCheckpoint
from tests.unit.kubectl_restore.verbs.conftest import Run


@pytest.fixture
def run(command: Run) -> Run:
    return partial(command, "inspect")


@pytest.fixture
def archive(write_checkpoint: WriteCheckpoint) -> Path:
    return write_checkpoint(containerd(rich_dump()))


def test_people_get_a_tree(run: Run, archive: Path) -> None:
    status, out, err = run(archive)
    assert (status, err) == (0, "")
    assert out.startswith("app, container of pod shop/app-pod\n├── taken 2026-11-24 03:24:13 UTC\n")
    assert "1 /bin/app --serve\n" in out


def test_scripts_get_a_document(run: Run, archive: Path) -> None:
    _, as_json, _ = run(archive, "-o", "json")
    _, as_yaml, _ = run(archive, "-o", "yaml")
    document = json.loads(as_json)
    assert document["kind"] == "CheckpointInspection"
    assert document["archive"]["name"] == str(archive)
    assert yaml.safe_load(as_yaml) == document


def test_page_is_its_owners_alone(run: Run, archive: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert run(archive, "--html", page) == (0, "", "")
    assert page.read_text().startswith("<!doctype html>")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.tar", "page.html"}


def test_page_goes_to_the_output_too(run: Run, archive: Path) -> None:
    assert run(archive, "--html", "-")[1].startswith("<!doctype html>")


def test_page_replaces_the_one_before_or_leaves_it(run: Run, archive: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("old")
    run(archive, "--html", page)
    assert page.read_text() != "old"
    status, _, err = run(archive, "--html", tmp_path / "none" / "page.html")
    assert status == 1
    assert err == f"error: cannot write {tmp_path}/none/page.html: No such file or directory\n"


def test_unpacked_directory(run: Run, tmp_path: Path) -> None:
    folder = write_directory(tmp_path / "unpacked", containerd(rich_dump()))
    assert "1 /bin/app --serve" in run(folder)[1]


@pytest.mark.parametrize("image_format", ["archive", "layered"])
@pytest.mark.parametrize("place", ["oci", "oci-archive", "registry"])
def test_checkpoint_images(
    run: Run,
    command: Run,
    archive: Path,
    tmp_path: Path,
    start_registry: StartRegistry,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    image_format: str,
) -> None:
    registry = start_registry()
    reference = f"{registry.host}/ck:1"
    where = {
        "oci": ["--oci-layout", tmp_path / "layout"],
        "oci-archive": ["--oci-archive", tmp_path / "image.tar"],
        "registry": ["--push", "--plain-http"],
    }[place]
    base = BaseImage().write_layout(tmp_path / "base")
    words = ["-t", reference, "--format", image_format, "--base", base, "-q", *where]
    assert command("build", archive, *words)[0] == 0
    sources = {
        "oci": [f"oci:{tmp_path / 'layout'}", f"oci:{tmp_path / 'layout'}:{reference}", tmp_path / "layout"],
        "oci-archive": [f"oci-archive:{tmp_path / 'image.tar'}", tmp_path / "image.tar"],
        "registry": [reference],
    }[place]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    for source in sources:
        status, out, err = run(source, "--plain-http")
        assert (status, err) == (0, "")
        assert "1 /bin/app --serve" in out
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/nowhere/checkpoint.tar", "there is no file"),
        ("./checkpoint.tar", "there is no file"),
        ("checkpoint.tar.gz", "there is no file"),
        ("NOT/A/Reference", "there is no file"),
        ("oci:/nowhere", "there is no /nowhere"),
        ("oci-archive:/nowhere", "there is no /nowhere"),
        ("localhost:1/app:1", "localhost:1"),
    ],
)
def test_source_that_is_none(run: Run, source: str, words: str) -> None:
    status, out, err = run(source)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1


def test_ordinary_image_is_no_checkpoint(run: Run, tmp_path: Path) -> None:
    status, _, err = run(BaseImage().write_layout(tmp_path / "base"))
    assert status == 1
    assert "no checkpoint image" in err


def test_layout_without_that_name_lists_those_it_has(run: Run, tmp_path: Path) -> None:
    place = BaseImage().write_layout(tmp_path / "base")
    status, _, err = run(f"{place}:other:1")
    assert status == 1
    assert "registry.example/app:1" in err


def refused(run: Run, source: Path) -> None:
    for words in ((), ("-o", "json"), ("--html", "-")):
        status, out, err = run(source, *words)
        assert (status, out) == (1, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert "bug" not in err


@pytest.mark.parametrize("compression", list(Compression))
def test_archive_cut_short_anywhere(run: Run, tmp_path: Path, compression: Compression) -> None:
    content = tar_of(containerd(rich_dump()), compression)
    path = tmp_path / "cut.tar"
    for part in (0.001, 0.1, 0.3, 0.6, 0.9, 0.99):
        path.write_bytes(content[: int(len(content) * part)])
        refused(run, path)


def test_files_that_are_something_else(run: Run, tmp_path: Path) -> None:
    for name, content in (("empty", b""), ("text", b"hello\n" * 500), ("zip", b"PK\3\4" + bytes(5000))):
        path = tmp_path / name
        path.write_bytes(content)
        refused(run, path)
    (tmp_path / "folder").mkdir()
    refused(run, tmp_path / "folder")
    (tmp_path / "link").symlink_to(tmp_path / "text")
    refused(run, tmp_path / "link")


def test_no_damaged_image_ends_in_a_traceback(run: Run, tmp_path: Path) -> None:
    """Bytes changed anywhere: it is read, or refused in one sentence."""
    chance = random.Random(11)
    sound = containerd(rich_dump())
    path = tmp_path / "damaged.tar"
    names = [name for name in sound if name.endswith((".img", ".dump"))]
    for _ in range(60):
        files = dict(sound)
        name = chance.choice(names)
        content = bytearray(files[name])
        for _ in range(chance.randint(1, 4)):
            if content:
                content[chance.randrange(len(content))] = chance.randrange(256)
        files[name] = bytes(content[: chance.choice([len(content), chance.randint(0, len(content))])])
        path.write_bytes(tar_of(files))
        status, out, err = run(path, "--html", "-")
        assert "bug" not in err, (name, err)
        assert (status, bool(out)) in ((0, True), (1, False))
        assert err.count("\n") == status


def test_checkpoint_on_a_node_that_is_not_there(run: Run, kubeconfig: Path) -> None:
    status, _, err = run("node/other:/var/lib/kubelet/checkpoints/x.tar", "--kubeconfig", kubeconfig)
    assert status == 1
    assert err.startswith("error: ")


def test_help_loads_nothing_that_it_does_not_show() -> None:
    heavy = ("rich", "yaml", "kubernetes", "urllib3", "google.protobuf", "zstandard")
    script = (
        "import sys; from kubectl_restore import cli; sys.argv = ['kubectl-restore', 'inspect', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit: pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--html" in done.stdout
    assert done.stderr == "[]\n"
