from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kubectl_restore import cli
from shared import oci
from tests.support.base_image import BaseImage
from tests.support.checkpoints import containerd, tar_of
from tests.support.fake_registry import TLS, Faults
from tests.unit.kubectl_restore.conftest import StartRegistry, WriteCheckpoint
from tests.unit.kubectl_restore.verbs.conftest import Run


@pytest.fixture
def run(command: Run) -> Run:
    return partial(command, "build")


@pytest.fixture
def base(tmp_path: Path) -> str:
    return BaseImage().write_layout(tmp_path / "base")


def test_people_get_one_line_scripts_a_name_or_json(
    run: Run, write_checkpoint: WriteCheckpoint, base: str, tmp_path: Path
) -> None:
    words = (write_checkpoint(), "-t", "x.example/ck:1", "--oci-layout", tmp_path / "out", "--base", base)
    status, text, _ = run(*words)
    assert status == 0
    assert text.startswith("wrote x.example/ck:1 to the OCI layout ")
    assert "(layered, " in text
    assert text.count("\n") == 1
    _, name, _ = run(*words, "-o", "name")
    reference, _, digest = name.strip().partition("@")
    assert reference == "x.example/ck:1"
    assert digest in text
    _, document, _ = run(*words, "-o", "json")
    assert json.loads(document) == {
        "reference": "x.example/ck:1",
        "digest": digest,
        "format": "layered",
        "sizeBytes": json.loads(document)["sizeBytes"],
        "baseDigest": BaseImage().digest,
        "seconds": json.loads(document)["seconds"],
    }
    assert run(*words, "-q")[1] == ""


def test_what_is_pushed_is_said(run: Run, write_checkpoint: WriteCheckpoint, start_registry: StartRegistry) -> None:
    registry = start_registry()
    base = BaseImage().push(registry)
    status, text, _ = run(
        write_checkpoint(), "-t", f"{registry.host}/ck", "--push", "--base", base, "--format", "archive"
    )
    assert status == 0
    assert text.startswith(
        f"pushed {registry.host}/ck:latest: {oci.digest_of(registry.manifests['ck', 'latest'])} (archive"
    )


def test_an_archive_in_its_own_format_is_the_layer(
    run: Run, write_checkpoint: WriteCheckpoint, base: str, tmp_path: Path
) -> None:
    """Its digest is begun with before anything else is known."""
    path = write_checkpoint()
    words = ("-t", "x.example/ck", "--oci-layout", tmp_path / "out", "--base", base, "--format", "archive")
    assert run(path, *words)[0] == 0
    digest = oci.digest_of(path.read_bytes()).removeprefix("sha256:")
    assert (tmp_path / "out/blobs/sha256" / digest).read_bytes() == path.read_bytes()


def test_an_oci_archive_is_written(run: Run, write_checkpoint: WriteCheckpoint, base: str, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    status, text, _ = run(write_checkpoint(), "-t", "x.example/ck", "--oci-archive", path, "--base", base)
    assert (status, path.is_file()) == (0, True)
    assert f"OCI archive {path}" in text


def test_a_dry_run_shows_what_each_compression_costs_and_changes_nothing(
    run: Run, write_checkpoint: WriteCheckpoint, start_registry: StartRegistry
) -> None:
    registry = start_registry()
    base = BaseImage().push(registry)
    words = (write_checkpoint(), "-t", f"{registry.host}/ck:1", "--push", "--base", base, "--compress", "zstd")
    status, text, _ = run(*words, "--dry-run")
    assert status == 0
    assert text.startswith(f"nothing was built (dry run): {registry.host}/ck:1, layered, to the registry ")
    assert re.search(r", 2 layers of \S+ K?i?B: 2 mounted from its repository$", text, re.MULTILINE)
    assert re.search(r"^COMPRESS +SIZE +TIME\n", text, re.MULTILINE)
    assert re.search(r"^none +\S+ KiB +\d\.\d\d s\n", text, re.MULTILINE)
    assert re.search(r"^zstd .* as asked$", text, re.MULTILINE)
    status, document, _ = run(*words, "--dry-run", "-o", "json")
    found = json.loads(document)
    assert [cost["compress"] for cost in found["costs"]] == ["none", "gzip", "zstd"]
    assert {layer["origin"] for layer in found["baseLayers"]} == {"mounted"}
    assert (found["dryRun"], found["estimated"], found["format"]) == (True, False, "layered")
    assert {method for method, _, _ in registry.requests} <= {"GET", "HEAD"}
    run(*words)
    _, document, _ = run(*words, "--dry-run", "-o", "json")
    assert {layer["origin"] for layer in json.loads(document)["baseLayers"]} == {"there"}


def test_a_dry_run_needs_no_destination_and_writes_to_none(
    run: Run, write_checkpoint: WriteCheckpoint, base: str, tmp_path: Path
) -> None:
    words = (write_checkpoint(), "-t", "x.example/ck:1", "--base", base, "--dry-run")
    before = sorted(tmp_path.rglob("*"))
    for to in ((), ("--oci-layout", tmp_path / "out"), ("--oci-archive", tmp_path / "out.tar")):
        status, text, _ = run(*words, *to)
        assert (status, text.count("\n")) == (0, 8)
        assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_of_what_is_no_sound_checkpoint_fails(run: Run, base: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.tar"
    path.write_bytes(tar_of(containerd())[:5000])
    status, out, err = run(path, "-t", "x.example/ck:1", "--base", base, "--dry-run")
    assert (status, out) == (1, "")
    assert err.startswith("error: ")


@pytest.mark.parametrize("words", [("pod/web", "--dry-run"), ("x.tar", "--dry-run", "-o", "name")])
def test_a_dry_run_takes_no_checkpoint_and_has_no_digest(words: tuple[str, ...], run: Run) -> None:
    status, out, err = run(*words, "-t", "x.example/ck:1", "--push")
    assert (status, out) == (2, "")
    assert "--dry-run" in err


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_layers_are_compressed_as_asked(
    compression: str, run: Run, write_checkpoint: WriteCheckpoint, base: str, start_registry: StartRegistry
) -> None:
    registry = start_registry()
    words = ("--push", "--base", base, "--format", "archive", "--compress", compression)
    assert run(write_checkpoint(), "-t", f"{registry.host}/ck", *words)[0] == 0
    [layer] = registry.manifest("ck", "latest")["layers"]
    assert layer["mediaType"].rpartition(".")[2] == {"none": "tar", "gzip": "tar+gzip", "zstd": "tar+zstd"}[compression]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--push", "--compress", "lz4"),
        ("--push", "--oci-layout", "x"),
        ("--oci-layout", "x", "--oci-archive", "y"),
        ("--push", "--format", "docker"),
        ("--push", "-o", "yaml"),
        ("--push", "--unknown"),
    ],
)
def test_wrong_usage_ends_with_2(words: tuple[str, ...], run: Run, write_checkpoint: WriteCheckpoint) -> None:
    status, out, err = run(write_checkpoint(), "-t", "x.example/ck:1", *words)
    assert (status, out) == (2, "")
    assert "Usage:" in err


@pytest.mark.parametrize("tag", ["", "x.example/UPPER:1", "x.example/ck@sha256:" + "a" * 64])
def test_a_name_that_is_none_is_wrong_usage(tag: str, run: Run, write_checkpoint: WriteCheckpoint) -> None:
    status, _, err = run(write_checkpoint(), "-t", tag, "--push")
    assert status == 2
    assert "--tag" in err


def test_no_name_at_all_is_wrong_usage(run: Run, write_checkpoint: WriteCheckpoint) -> None:
    assert run(write_checkpoint(), "--push")[0] == 2


@pytest.mark.parametrize("content", [b"", b"hello", tar_of(containerd())[:5000], tar_of({"x": b""})])
def test_what_is_no_sound_checkpoint_ends_with_1_and_one_sentence(
    content: bytes, run: Run, base: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.tar"
    path.write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    layout = ("--oci-layout", tmp_path / "out")
    for to in (layout, (*layout, "--format", "archive"), ("--oci-archive", tmp_path / "out.tar"), ("--push",)):
        status, out, err = run(path, "-t", "127.0.0.1:1/ck:1", "--base", base, *to)
        assert (status, out) == (1, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        assert sorted(tmp_path.rglob("*")) == before


def test_a_registry_that_is_not_there_is_said_at_once(
    run: Run, write_checkpoint: WriteCheckpoint, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def counted(host: object, *words: Any, **more: Any) -> Any:
        asked.append(host)
        return resolve(host, *words, **more)

    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", counted)
    status, _, err = run(write_checkpoint(), "-t", "nowhere.invalid/ck:1", "--push", "--base", base)
    assert status == 1
    assert "error: there is no host named nowhere.invalid; check the image reference" in err
    assert asked.count("nowhere.invalid") == 1, "not tried again and again"


def test_a_missing_archive_is_a_sentence(run: Run, base: str, tmp_path: Path) -> None:
    status, _, err = run(tmp_path / "none.tar", "-t", "x.example/ck", "--oci-layout", tmp_path / "o", "--base", base)
    assert (status, err) == (1, f"error: cannot read {tmp_path}/none.tar: No such file or directory\n")


def test_debug_shows_where(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from shared.errors import CheckpointInvalid

    words = ["kubectl-restore", "build", str(tmp_path / "none.tar"), "-t", "x.example/ck", "--push", "--debug"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(CheckpointInvalid):
        cli.main()
    status, _, err = run(tmp_path / "none.tar", "-t", "x.example/ck", "--push")
    assert status == 1
    assert "Traceback" not in err


def test_a_bug_is_owned_up_to(
    run: Run, write_checkpoint: WriteCheckpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("kubectl_restore.image.build.read_checkpoint", lambda _: 1 / 0)
    status, _, err = run(write_checkpoint(), "-t", "x.example/ck", "--oci-layout", tmp_path / "out")
    assert status == 1
    assert "this is a bug in kubectl-restore" in err
    assert "--debug" in err
    assert err.count("\n") == 1


def test_warnings_go_to_standard_error(run: Run, write_checkpoint: WriteCheckpoint, tmp_path: Path) -> None:
    status, out, err = run(write_checkpoint(), "-t", "x.example/ck", "--oci-layout", tmp_path / "out", "-o", "name")
    assert status == 0
    assert err.startswith("warning: building the archive format")
    assert out.startswith("x.example/ck:latest@sha256:")


@pytest.mark.parametrize("option", ["--no-tls-verify", f"--ca-file={TLS / 'ca.pem'}"])
def test_tls_choices_are_those_of_skopeo_and_kubectl(
    option: str, run: Run, write_checkpoint: WriteCheckpoint, start_registry: StartRegistry
) -> None:
    registry = start_registry(tls=True)
    base = BaseImage().push(registry)
    build = (write_checkpoint(), "-t", f"{registry.host}/ck:1", "--push", "--base", base)
    status, _, err = run(*build)
    assert status == 1
    assert "certificate" in err
    assert run(*build, option)[0] == 0
    assert ("ck", "1") in registry.manifests


def test_plain_http_is_asked_for_elsewhere(
    run: Run, write_checkpoint: WriteCheckpoint, start_registry: StartRegistry, base: str
) -> None:
    registry = start_registry()
    host = registry.host.replace("127.0.0.1", "0.0.0.0")
    build = (write_checkpoint(), "-t", f"{host}/ck:1", "--push", "--base", base)
    assert run(*build)[0] == 1
    assert run(*build, "--plain-http")[0] == 0
    assert ("ck", "1") in registry.manifests


def test_the_auth_file_is_used(
    run: Run, write_checkpoint: WriteCheckpoint, start_registry: StartRegistry, base: str, tmp_path: Path
) -> None:
    registry = start_registry(auth="bearer")
    build = (write_checkpoint(), "-t", f"{registry.host}/ck:1", "--push", "--base", base)
    status, _, err = run(*build)
    assert status == 1
    assert f"log in first: docker login {registry.host}" in err
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {registry.host: {"auth": "dGVzdGVyOnNlY3JldA=="}}}))
    assert run(*build, "--authfile", path)[0] == 0


def test_a_forbidden_repository_is_a_sentence(
    run: Run, write_checkpoint: WriteCheckpoint, start_registry: StartRegistry, base: str
) -> None:
    registry = start_registry(faults=Faults(forbid="ck"))
    status, _, err = run(write_checkpoint(), "-t", f"{registry.host}/ck:1", "--push", "--base", base)
    assert status == 1
    assert f"the registry {registry.host} for ck forbids this to an anonymous user (requested access is denied)" in err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_the_upload(
    number: signal.Signals, status: int, tmp_path: Path, start_registry: StartRegistry
) -> None:
    registry = start_registry()
    files = containerd() | {"checkpoint/filler": os.urandom(16 << 20)}
    path = tmp_path / "big.tar"
    path.write_bytes(tar_of(files))
    paused, go_on = threading.Event(), threading.Event()

    class Stalled(bytearray):
        """An upload that the registry is slow to take."""

        def __iadd__(self, more: bytes) -> Stalled:  # type: ignore[override, misc]
            paused.set()
            go_on.wait(60)
            return self

    class Uploads(dict[str, bytearray]):
        def __setitem__(self, key: str, value: bytearray) -> None:
            super().__setitem__(key, Stalled(value))

    registry.uploads = Uploads()
    command = [sys.executable, "-c", "from kubectl_restore.cli import main; main()", "build", str(path)]
    options = ["-t", f"{registry.host}/ck:1", "--push", "--format", "archive", "--base", BaseImage().push(registry)]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert paused.wait(60)
        process.send_signal(number)
        time.sleep(0.1)
        go_on.set()
        _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert "Traceback" not in err
    assert not registry.uploads
    assert ("ck", "1") not in registry.manifests


def test_help_loads_no_heavy_module() -> None:
    """Start-up time is what a user of completion and --help feels."""
    program = (
        "import sys; sys.argv = ['kubectl-restore', 'build', '--help']\n"
        "from kubectl_restore import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'urllib3', 'google.protobuf', 'rich', 'zstandard', 'kubernetes', 'ssl'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for option in ("--push", "--oci-layout", "--oci-archive", "--base", "--plain-http", "--ca-file", "--authfile"):
        assert option in done.stdout
