from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_restore.image.images import load_image
from kubectl_restore.image.layers import Layer
from kubectl_restore.image.layout import LayoutDestination, LayoutImages
from kubectl_restore.image.progress import Silent
from kubectl_restore.image.source import PIECE_BYTES, Literal
from shared import oci
from shared.compression import Compression
from shared.errors import RestoreError
from tests.support.base_image import BaseImage

PLATFORM = oci.Platform("linux", "amd64")


def _layer(content: bytes) -> Layer:
    return Layer(Literal(content), Compression.NONE, "a layer")


def _write(path: Path, name: str = "x.example/ck:1", content: bytes = b"layer") -> str:
    manifest = oci.encode({"schemaVersion": 2, "for": name, "layer": oci.digest_of(content)})
    with LayoutDestination(path, oci.parse_reference(name), Silent()) as destination:
        destination.write(_layer(content))
        destination.finish(b"{}", manifest)
    return oci.digest_of(manifest)


def _tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def _entries(path: Path) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = json.loads((path / "index.json").read_bytes())["manifests"]
    return entries


def test_a_new_layout_is_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "layout"
    digest = _write(path)
    files = _tree(path)
    for name, content in files.items():
        if name.startswith("blobs/sha256/"):
            assert oci.digest_of(content) == "sha256:" + name.removeprefix("blobs/sha256/")
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    assert len(files) == 2 + 3
    assert [entry["digest"] for entry in _entries(path)] == [digest]
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((path / "blobs" / digest.replace(":", "/")).stat().st_mode) == 0o600


def test_another_image_is_added_and_the_same_name_is_replaced(tmp_path: Path) -> None:
    _write(tmp_path, "x.example/ck:1", b"one")
    two = _write(tmp_path, "x.example/ck:2", b"two")
    three = _write(tmp_path, "x.example/ck:1", b"three")
    assert [entry["digest"] for entry in _entries(tmp_path)] == [two, three]


def test_what_others_wrote_into_the_index_stays(tmp_path: Path) -> None:
    BaseImage().write_layout(tmp_path)
    index = json.loads((tmp_path / "index.json").read_bytes())
    index["annotations"] = {"owner": "somebody"}
    index["manifests"][0]["data"] = "e30="
    (tmp_path / "index.json").write_text(json.dumps(index))
    _write(tmp_path)
    after = json.loads((tmp_path / "index.json").read_bytes())
    assert after["annotations"] == {"owner": "somebody"}
    assert after["manifests"][0] == index["manifests"][0]
    assert len(after["manifests"]) == 2


class _Fails:
    size = 1 << 20

    def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        yield b"some"
        raise RestoreError("Test", "the source failed")


def test_a_failed_build_leaves_no_new_directory(tmp_path: Path) -> None:
    path = tmp_path / "layout"
    with (
        pytest.raises(RestoreError, match="the source failed"),
        LayoutDestination(path, oci.parse_reference("x"), Silent()) as destination,
    ):
        destination.write(_layer(b"good"))
        destination.write(Layer(_Fails(), Compression.NONE, "bad"))
    assert not path.exists()


def test_a_failed_build_leaves_an_existing_layout_as_it_was(tmp_path: Path) -> None:
    _write(tmp_path, "x.example/ck:1", b"shared")
    before = _tree(tmp_path)
    with (
        pytest.raises(KeyboardInterrupt),
        LayoutDestination(tmp_path, oci.parse_reference("x"), Silent()) as destination,
    ):
        destination.write(_layer(b"shared"))
        destination.write(_layer(b"new"))
        raise KeyboardInterrupt
    assert _tree(tmp_path) == before


def test_a_directory_with_other_things_in_it_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RestoreError, match="not empty and no OCI layout") as refusal:
        _write(tmp_path)
    assert refusal.value.reason == "LayoutInvalid"
    assert _tree(tmp_path) == {"thesis.tex": b"x"}


@pytest.mark.parametrize("index", ["{", "[]", '{"manifests": {}}'])
def test_a_damaged_index_is_refused_before_anything_is_written(index: str, tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "index.json").write_text(index)
    before = _tree(tmp_path)
    with pytest.raises(RestoreError, match=r"index\.json"):
        _write(tmp_path, content=b"other")
    assert _tree(tmp_path) == before


@pytest.mark.parametrize("obstacle", ["file", "parent"])
def test_where_no_directory_can_be_is_a_sentence(obstacle: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if obstacle == "file":
        path.write_text("a file")
    else:
        path = tmp_path / "missing" / "x"
    with pytest.raises(RestoreError, match=f"cannot write the OCI layout {path}") as refusal:
        _write(path)
    assert refusal.value.reason == "LayoutUnwritable"


def test_two_builds_into_one_layout_wait_for_each_other(tmp_path: Path) -> None:
    _write(tmp_path, "x.example/ck:0")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    threads = [threading.Thread(target=_write, args=(tmp_path, f"x.example/ck:{n}", b"%d" % n)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert len(_entries(tmp_path)) == 1
    os.close(descriptor)
    for thread in threads:
        thread.join()
    assert len(_entries(tmp_path)) == 4


def test_layers_of_a_base_are_copied_once_and_checked(tmp_path: Path) -> None:
    base = BaseImage()
    base.write_layout(tmp_path / "base")
    image = load_image(LayoutImages(tmp_path / "base"), base.digest, "base", PLATFORM)
    with LayoutDestination(tmp_path / "out", oci.parse_reference("x"), Silent()) as destination:
        for descriptor in [*image.manifest.layers, *image.manifest.layers]:
            destination.copy(descriptor, image)
        destination.finish(b"{}", b"{}")
    written = set(_tree(tmp_path / "out").values())
    assert set(base.layers) <= written


@pytest.mark.parametrize("spoil", [b"X", b""])
def test_a_damaged_layer_of_the_base_is_refused(spoil: bytes, tmp_path: Path) -> None:
    base = BaseImage()
    base.write_layout(tmp_path / "base")
    image = load_image(LayoutImages(tmp_path / "base"), base.digest, "base", PLATFORM)
    blob = tmp_path / "base" / "blobs" / image.manifest.layers[0].digest.replace(":", "/")
    blob.write_bytes(spoil + blob.read_bytes()[1:])
    with (
        pytest.raises(RestoreError, match="for the layer sha256") as refusal,
        LayoutDestination(tmp_path / "out", oci.parse_reference("x"), Silent()) as destination,
    ):
        destination.copy(image.manifest.layers[0], image)
    assert refusal.value.reason == "ImageInvalid"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("which", ["manifest", "config"])
def test_a_damaged_base_is_refused(which: str, tmp_path: Path) -> None:
    base = BaseImage()
    base.write_layout(tmp_path)
    digest = base.digest if which == "manifest" else base.config_digest
    blob = tmp_path / "blobs" / digest.replace(":", "/")
    blob.write_bytes(blob.read_bytes().replace(b"linux", b"Linux").replace(b"oci", b"OCI"))
    with pytest.raises(RestoreError) as refusal:
        load_image(LayoutImages(tmp_path), base.digest, "base", PLATFORM)
    assert refusal.value.reason == "ImageInvalid"


def test_what_is_no_layout_is_said(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="no OCI layout"):
        LayoutImages(tmp_path)
