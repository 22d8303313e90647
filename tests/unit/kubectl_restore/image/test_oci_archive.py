from __future__ import annotations

import io
import json
import stat
import tarfile
from pathlib import Path

import pytest

from kubectl_restore.image import oci_archive
from kubectl_restore.image.images import load_image
from kubectl_restore.image.layers import Layer
from kubectl_restore.image.layout import blob_path
from kubectl_restore.image.oci_archive import ArchiveDestination, ArchiveImages
from kubectl_restore.image.progress import Silent
from kubectl_restore.image.source import Literal
from shared import oci
from shared.compression import Compression
from shared.errors import RestoreError
from tests.fuzz.bounds import bounded
from tests.support.base_image import BaseImage
from tests.support.checkpoints import compress, tar_of

PLATFORM = oci.Platform("linux", "amd64")


def _layer(content: bytes) -> Layer:
    return Layer(Literal(content), Compression.NONE, "a layer")


def _files(path: Path) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes()), mode="r:") as archive:
        names = archive.getnames()
        assert len(names) == len(set(names)), "every blob once"
        return {name: (archive.extractfile(name) or io.BytesIO()).read() for name in names}


def test_an_archive_written_in_one_pass_has_every_blob_under_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    contents = [b"one", b"", b"x" * 512, b"y" * 513, b"one"]
    with ArchiveDestination(path, oci.parse_reference("x.example/ck:1"), Silent()) as destination:
        written = [destination.write(_layer(content)) for content in contents]
        destination.finish(b'{"config":1}', b'{"manifest":1}')
    assert [layer.descriptor.digest for layer in written] == [oci.digest_of(content) for content in contents]
    files = _files(path)
    for content in [*contents, b'{"config":1}', b'{"manifest":1}']:
        assert files["blobs/" + oci.digest_of(content).replace(":", "/")] == content
    index = json.loads(files["index.json"])
    assert index["manifests"][0]["annotations"][oci.CONTAINERD_IMAGE_NAME] == "x.example/ck:1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["image.tar"]


def test_what_was_there_is_replaced_only_by_a_whole_archive(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(b"old")
    with (
        pytest.raises(KeyboardInterrupt),
        ArchiveDestination(path, oci.parse_reference("x"), Silent()) as destination,
    ):
        destination.write(_layer(b"new"))
        raise KeyboardInterrupt
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"image.tar": b"old"}
    with ArchiveDestination(path, oci.parse_reference("x"), Silent()) as destination:
        destination.finish(b"{}", b"{}")
    assert "index.json" in _files(path)


@pytest.mark.parametrize("where", ["directory", "missing"])
def test_where_no_file_can_be_is_a_sentence(where: str, tmp_path: Path) -> None:
    path = tmp_path if where == "directory" else tmp_path / "missing" / "image.tar"
    with pytest.raises(RestoreError) as refusal, ArchiveDestination(path, oci.parse_reference("x"), Silent()):
        pass
    assert refusal.value.reason == "ArchiveUnwritable"
    assert str(path) in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_an_archive_that_we_wrote_is_read_again(tmp_path: Path) -> None:
    base = BaseImage()
    base.write_archive(tmp_path / "base.tar")
    image = load_image(ArchiveImages(tmp_path / "base.tar"), base.digest, "base", PLATFORM)
    assert image.diff_ids == tuple(base.diff_ids)
    path = tmp_path / "copy.tar"
    with ArchiveDestination(path, oci.parse_reference("x"), Silent()) as destination:
        for descriptor in [*image.manifest.layers, image.manifest.layers[0]]:
            destination.copy(descriptor, image)
        destination.finish(base.config, base.manifest)
    assert load_image(ArchiveImages(path), base.digest, "copy", PLATFORM).manifest == image.manifest


@pytest.mark.parametrize("kind", ["gzip", "text", "no index", "cut"])
def test_what_is_no_plain_oci_archive_is_said(kind: str, tmp_path: Path) -> None:
    whole = tar_of(BaseImage().layout_files())
    content = {
        "gzip": compress(whole, Compression.GZIP),
        "text": b"hello",
        "no index": tar_of({"x": b""}),
        "cut": whole[:700],
    }[kind]
    (tmp_path / "base.tar").write_bytes(content)
    with pytest.raises(RestoreError) as refusal:
        ArchiveImages(tmp_path / "base.tar")
    assert refusal.value.reason == "LayoutInvalid"


def test_a_blob_that_is_missing_is_named(tmp_path: Path) -> None:
    base = BaseImage()
    files = base.layout_files()
    del files["blobs/" + base.config_digest.replace(":", "/")]
    (tmp_path / "base.tar").write_bytes(tar_of(files))
    with pytest.raises(RestoreError, match=f"no blob {base.config_digest}"):
        load_image(ArchiveImages(tmp_path / "base.tar"), base.digest, "base", PLATFORM)


def test_a_header_keeps_its_length_when_its_name_is_filled_in() -> None:
    """Also above 8 GiB, where tar needs an extended header for the size."""
    for size in (0, 9 << 30):
        before, after = (oci_archive._header(blob_path("sha256:" + digit * 64), size) for digit in "0a")
        assert len(before) == len(after)
        assert tarfile.TarInfo.frombuf(after[-512:], "utf-8", "strict").name == blob_path("sha256:" + "a" * 64)


def test_an_archive_that_leads_back_into_itself_is_refused(tmp_path: Path) -> None:
    """Python's own tarfile reads a member with a size of -512 for ever (CVE-2025-8194)."""
    whole = bytearray(tar_of({"oci-layout": b"{}", "index.json": b"{}"}))
    header = slice(1024, 1536)
    whole[1024 + 124 : 1024 + 136] = b"\xff" * 10 + b"\xfe\0"
    whole[1024 + 148 : 1024 + 156] = b" " * 8
    whole[1024 + 148 : 1024 + 156] = f"{sum(whole[header]):06o}\0 ".encode()
    (tmp_path / "image.tar").write_bytes(whole)
    with bounded(cpu_s=5), pytest.raises(RestoreError, match="no valid size") as refusal:
        ArchiveImages(tmp_path / "image.tar")
    assert refusal.value.reason == "LayoutInvalid"


def test_an_index_larger_than_any_is_not_read(tmp_path: Path) -> None:
    hole = tarfile.TarInfo("index.json")
    hole.size = 3 << 30
    path = tmp_path / "image.tar"
    with path.open("wb") as file:
        file.write(tar_of({"oci-layout": b"{}"})[:1024] + hole.tobuf(tarfile.GNU_FORMAT))
        file.truncate(file.tell() + hole.size + 1024)
    with bounded(), pytest.raises(RestoreError, match="which no index has") as refusal:
        ArchiveImages(path)
    assert refusal.value.reason == "LayoutInvalid"
