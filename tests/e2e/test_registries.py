"""Pushing to registries of every kind, with the real command and a real registry."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shared import oci
from tests.e2e.node.places import CHECKOUT
from tests.e2e.node.registry import Registry
from tests.e2e.node.waiting import wait_for
from tests.e2e.registries import (
    PASSWORD,
    USER,
    Service,
    basic,
    self_signed,
    serving,
    stalling,
    token_service,
    with_tokens,
)
from tests.support.checkpoints import containerd, tar_of
from tests.support.large_archive import write_large_archive

Push = Callable[..., tuple[int, str]]


@pytest.fixture
def push(tmp_path: Path) -> Push:
    """``kubectl restore build … --push``: exit status and standard error."""
    archive = tmp_path / "checkpoint.tar"
    archive.write_bytes(tar_of(containerd()))

    def run(host: str, *words: object, source: Path = archive) -> tuple[int, str]:
        command = "from kubectl_restore.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", command, "build", source, "-t", f"{host}/ck:1", "--push", *map(str, words)],
            env={"PYTHONPATH": str(CHECKOUT), "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stderr

    return run


@pytest.fixture
def login(tmp_path: Path) -> Callable[[str, str], Path]:
    """An auth file with USER's password, or another."""

    def write(host: str, password: str = PASSWORD) -> Path:
        path = tmp_path / "auth.json"
        entry = base64.b64encode(f"{USER}:{password}".encode()).decode()
        path.write_text(json.dumps({"auths": {host: {"auth": entry}}}))
        return path

    return write


ARCHIVE = ("--format", "archive", "--plain-http")


def test_a_registry_for_everybody(registry: Registry, push: Push, login: Callable[..., Path]) -> None:
    """Nor does a login for another registry get in the way."""
    with serving(Service(registry.machine, 5100)) as service:
        status, said = push(service.host, *ARCHIVE)
        assert status == 0, said
        assert ("PUT", "/v2/ck/manifests/1", 201) in service.requests()
        status, said = push(service.host, *ARCHIVE, "--authfile", login("elsewhere.example"))
        assert status == 0, said
        assert not [path for _, path, answer in service.requests() if answer in (401, 403)]


def test_a_registry_with_passwords(registry: Registry, push: Push, login: Callable[..., Path]) -> None:
    with serving(basic(registry.machine, 5101)) as service:
        status, said = push(service.host, *ARCHIVE)
        assert (status, "wants a login" in said, service.host in said) == (1, True, True)
        status, said = push(service.host, *ARCHIVE, "--authfile", login(service.host, "wrong"))
        assert (status, "refuses the login from" in said) == (1, True)
        status, said = push(service.host, *ARCHIVE, "--authfile", login(service.host))
        assert status == 0, said
        assert ("PUT", "/v2/ck/manifests/1", 201) in service.requests()


def test_a_registry_with_tokens(registry: Registry, push: Push, login: Callable[..., Path]) -> None:
    with (
        token_service(registry.machine, grants={"pull", "push"}) as realm,
        serving(with_tokens(registry.machine, 5102, realm)) as service,
    ):
        status, said = push(service.host, *ARCHIVE)
        assert (status, "wants a login" in said) == (1, True)
        status, said = push(service.host, *ARCHIVE, "--authfile", login(service.host))
        assert status == 0, said
        assert ("PUT", "/v2/ck/manifests/1", 201) in service.requests()


def test_a_registry_that_grants_no_push(registry: Registry, push: Push, login: Callable[..., Path]) -> None:
    with (
        token_service(registry.machine, grants={"pull"}) as realm,
        serving(with_tokens(registry.machine, 5103, realm)) as service,
    ):
        status, said = push(service.host, *ARCHIVE, "--authfile", login(service.host))
        assert status == 1
        assert "error: " in said
        assert "refuses the login from" in said
        assert not [path for method, path, answer in service.requests() if method != "GET" and answer < 400]


def test_a_registry_with_a_certificate_of_its_own(registry: Registry, push: Push, tmp_path: Path) -> None:
    with serving(self_signed(registry.machine, 5104)) as service:
        status, said = push(service.host, "--format", "archive")
        assert (status, "--ca-file" in said) == (1, True)
        certificate = tmp_path / "registry.crt"
        certificate.write_bytes(service.machine.path("/etc/registry.crt").read_bytes())
        for trust in (("--ca-file", certificate), ("--no-tls-verify",)):
            status, said = push(service.host, "--format", "archive", *trust)
            assert status == 0, said


def test_the_bases_layers_are_mounted_within_a_registry_and_copied_between_two(
    registry: Registry, busybox: str, push: Push
) -> None:
    repository = busybox.partition("/")[2].partition(":")[0]
    _, _, document = registry.request(
        "GET", f"/v2/{repository}/manifests/1", headers={"Accept": "application/vnd.oci.image.manifest.v1+json"}
    )
    layers = [layer["digest"] for layer in json.loads(document)["layers"]]
    with serving(Service(registry.machine, 5105)) as service:
        status, said = push(service.host, "--format", "layered", "--plain-http", "--base", busybox)
        assert status == 0, said
        assert all(service.blob(digest).is_file() for digest in layers)
        requests = service.requests()
        assert sum(method == "PATCH" for method, _, _ in requests) == len(layers) + 3, "and diff, checkpoint, config"

        path = oci.parse_reference(f"{service.host}/ck:1").repository
        before = len(requests)
        words = ("--format", "layered", "--plain-http", "--base", f"{service.host}/{path}:1")
        status, said = push(f"{service.host}/other", *words)
        assert status == 0, said
        requests = service.requests()[before:]
        mounts = [answer for method, uri, answer in requests if method == "POST" and "from=ck" in uri]
        assert mounts == [201] * (len(layers) + 1), "the base's and the first checkpoint's diff; not its memory"


@pytest.mark.parametrize("compress", [(), ("--compress", "zstd")], ids=["plain", "zstd"])
def test_a_registry_that_dies_in_mid_upload_and_comes_back(
    registry: Registry, push: Push, tmp_path: Path, compress: tuple[str, ...]
) -> None:
    """This one forgets an upload that broke off inside a request; one that does not is in the unit tests."""
    source = write_large_archive(tmp_path / "large.tar", 64 << 20)
    if compress:
        _fill(source)
    service = Service(registry.machine, 5106)
    result: list[tuple[int, str]] = []
    with serving(service), stalling(service, 8 << 20) as (host, go_on):
        pushing = threading.Thread(target=lambda: result.append(push(host, *ARCHIVE, *compress, source=source)))
        pushing.start()
        wait_for(lambda: bool(result) or service.uploaded_bytes() > 1 << 20, "an upload to be under way")
        assert not result, "in the middle"
        service.program.kill()
        service.start()
        go_on.set()
        pushing.join()
        [(status, said)] = result
        assert status == 0, said
        requests = service.requests()
        assert sum(method == "PATCH" and answer == 202 for method, _, answer in requests) >= 3, "two chunks and config"
        assert ("PUT", "/v2/ck/manifests/1", 201) in requests


def _fill(archive: Path) -> None:
    """Bytes that do not compress instead of the hole, so that there is something to send."""
    with tarfile.open(archive) as tar, archive.open("r+b") as file:
        member = tar.getmember("checkpoint/pages-1.img")
        file.seek(member.offset_data)
        file.write(os.urandom(member.size))
