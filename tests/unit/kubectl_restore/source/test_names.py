from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_restore.source.names import LocalFile, NodeFile, PodContainer, source_name
from shared.errors import RestoreError

ARCHIVE = "/var/lib/kubelet/checkpoints/checkpoint-web_default-main-2026-11-24T05:49:01+01:00.tar"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web.tar", LocalFile(Path("web.tar"))),
        ("/a/web.tar", LocalFile(Path("/a/web.tar"))),
        ("./node/x", LocalFile(Path("node/x"))),
        (f"node/node-1:{ARCHIVE}", NodeFile("node-1", ARCHIVE)),
        ("nodes/a.b.c:/x.tar", NodeFile("a.b.c", "/x.tar")),
        ("pod/web", PodContainer("web")),
        ("po/web.v1:side-car", PodContainer("web.v1", "side-car")),
    ],
)
def test_sources(text: str, expected: object) -> None:
    assert source_name(text) == expected


def test_node_file_knows_its_directory() -> None:
    file = NodeFile("n", ARCHIVE)
    assert f"{file.directory}/{file.name}" == ARCHIVE


def test_what_exists_here_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pod").mkdir()
    (tmp_path / "pod" / "web").touch()
    assert source_name("pod/web") == LocalFile(Path("pod/web"))


@pytest.mark.parametrize(
    "text",
    [
        "node/n",
        "node/n:relative.tar",
        "node/:/x.tar",
        "node/n:/",
        "node/n:/a/../etc/shadow",
        "node/n://x.tar",
        "node/n:/a/",
        "pod/",
        "pod/Web",
        "pod/web:",
        "pod/web:a:b",
        "pod/a/b",
    ],
)
def test_half_a_source_is_refused(text: str) -> None:
    with pytest.raises(RestoreError) as error:
        source_name(text)
    assert error.value.reason == "SourceInvalid"
