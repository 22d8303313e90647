"""Real archives cut short, with bytes changed, and with files renamed, swapped or gone: each verb says one sentence."""

from __future__ import annotations

import gzip
import io
import random
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
import zstandard

from kubectl_restore.cli import main
from tests.e2e.restoring import Taken
from tests.support.checkpoints import tar_of

CUTS = 25
CHANGES = 40
SEED = 20260101


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


@pytest.fixture
def restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """``kubectl restore`` in this process, as its main program runs it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    # They are the process's own, which is pytest here.
    monkeypatch.setattr("kubectl_restore.ending.signal.signal", lambda number, action: None)

    def run(*words: str | Path) -> Ended:
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.object(sys, "argv", ["kubectl-restore", *map(str, words)]),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                main()
                status = 0
            except SystemExit as end:
                status = int(end.code or 0)
        return Ended(status, out.getvalue(), err.getvalue())

    return run


@dataclass(frozen=True)
class Verbs:
    """Runs every verb that reads an archive; each answer must be one a user can do something with."""

    restore: Callable[..., Ended]
    folder: Path

    def __call__(self, content: bytes) -> dict[str, Ended]:
        archive = self.folder / "checkpoint.tar"
        archive.write_bytes(content)
        page, layout = self.folder / "page.html", self.folder / "layout"
        found = {
            "inspect": self.restore("inspect", archive, "--html", page),
            "check": self.restore("check", archive, "--base", "none"),
            "build": self.restore("build", archive, "-t", "x:1", "--format", "archive", "--oci-layout", layout, "-q"),
        }
        for verb, ended in found.items():
            assert "Traceback" not in ended.err and "bug" not in ended.err, f"{verb}: {ended.err}"
            assert ended.status in ((0, 1, 2) if verb == "check" else (0, 1)), f"{verb}: {ended}"
            if ended.status == 1 and not ended.out:
                assert ended.err.startswith("error: ") and ended.err.count("\n") == 1, f"{verb}: {ended.err}"
        left = {path.name for path in self.folder.iterdir()} - {"checkpoint.tar"}
        expected = {name for name, verb in (("page.html", "inspect"), ("layout", "build")) if found[verb].status == 0}
        assert left == expected
        page.unlink(missing_ok=True)
        self._drop(layout)
        return found

    def _drop(self, folder: Path) -> None:
        for path in sorted(folder.rglob("*"), reverse=True) if folder.exists() else ():
            path.rmdir() if path.is_dir() else path.unlink()
        if folder.exists():
            folder.rmdir()

    def refuse(self, content: bytes) -> None:
        for verb, ended in self(content).items():
            assert ended.status == 1, f"{verb}: {ended}"
            assert "CheckpointDamaged" in ended.out or ended.err.startswith("error: "), f"{verb}: {ended}"


@pytest.fixture
def verbs(restore: Callable[..., Ended], tmp_path: Path) -> Verbs:
    (tmp_path / "here").mkdir()
    return Verbs(restore, tmp_path / "here")


@pytest.fixture(scope="session", params=["none", "gzip", "zstd"])
def archive(request: pytest.FixtureRequest, own_checkpoint: Taken) -> bytes:
    """A checkpoint of the containerd node's, compressed as one has it who sends it on."""
    content = own_checkpoint.archive.read_bytes()
    if request.param == "gzip":
        return gzip.compress(content)
    return zstandard.ZstdCompressor(write_checksum=True).compress(content) if request.param == "zstd" else content


def test_archive_as_it_is(verbs: Verbs, archive: bytes) -> None:
    assert {verb: ended.err for verb, ended in verbs(archive).items() if ended.status} == {}


def test_archive_cut_short_is_refused_wherever_it_ends(verbs: Verbs, archive: bytes) -> None:
    chosen = random.Random(SEED)
    for size in [0, 1, 100, 512, len(archive) - 512, len(archive) - 1, *chosen.sample(range(len(archive)), CUTS)]:
        verbs.refuse(archive[:size])


def test_archive_with_changed_bytes_is_read_or_refused(verbs: Verbs, archive: bytes) -> None:
    """Memory may be any bytes; all else is looked at."""
    chosen = random.Random(SEED)
    for _ in range(CHANGES):
        changed = bytearray(archive)
        at = chosen.randrange(len(archive))
        changed[at] ^= 1 << chosen.randrange(8)
        verbs(bytes(changed))


@pytest.fixture(scope="session")
def files(own_checkpoint: Taken) -> Mapping[str, bytes]:
    with tarfile.open(own_checkpoint.archive) as tar:
        return {each.name: content.read() for each in tar if (content := tar.extractfile(each)) is not None}


def without(files: Mapping[str, bytes], name: str) -> dict[str, bytes]:
    return {each: content for each, content in files.items() if each != name}


DISPENSABLE = ("container.log", "rootfs-diff.tar", "status", "dump.log", "stats-dump")
"""What a restore can do without."""
NONE_IF_MISSING = ("checkpoint/fdinfo-", "checkpoint/seccomp.img", "checkpoint/timens-")
"""CRIU writes these only where there is something to say, so a missing one cannot be told from none."""


def spoilt(files: Mapping[str, bytes]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Every file that matters: gone, under another name, empty, and half."""
    for name, content in files.items():
        if name in DISPENSABLE:
            continue
        if not name.startswith(NONE_IF_MISSING):
            yield f"{name} gone", without(files, name)
            yield f"{name} renamed", {**without(files, name), f"{name}.bak": content}
        yield f"{name} empty", {**files, name: b""}
        yield f"{name} half written", {**files, name: content[: len(content) // 2]}


def test_files_gone_renamed_empty_or_half_written_are_refused_by_check_and_build(
    verbs: Verbs, files: Mapping[str, bytes]
) -> None:
    accepted = []
    for what, content in spoilt(files):
        ended = verbs(tar_of(content))
        if ended["build"].status == 0 or "CheckpointWhole" in ended["check"].out:
            accepted.append(what)
    assert accepted == []
