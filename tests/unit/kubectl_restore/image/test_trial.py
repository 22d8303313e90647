from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from kubectl_restore.image import trial as trial_module
from kubectl_restore.image.access import Access
from kubectl_restore.image.build import Order, build, prepared
from kubectl_restore.image.destination import Destination
from kubectl_restore.image.images import Image
from kubectl_restore.image.layout import LayoutDestination, LayoutImages
from kubectl_restore.image.progress import Silent
from kubectl_restore.image.registry_images import RegistryDestination, RegistryImages
from kubectl_restore.image.trial import Trial, trial
from shared import oci
from shared.compression import Compression
from shared.contract import ImageFormat
from tests.support.base_image import BaseImage
from tests.support.checkpoints import crio
from tests.support.fake_registry import FakeRegistry
from tests.support.large_archive import write_large_archive
from tests.unit.kubectl_restore.conftest import StartRegistry, WriteCheckpoint

REFERENCE = oci.parse_reference("x.example/ck:1")


def _try(path: Path, image_format: ImageFormat, base: str) -> Trial:
    with prepared(Order(path, image_format, base), lambda _: Access(), lambda _: None) as ready:
        return trial(ready, None)


def _layers_bytes(path: Path, image_format: ImageFormat, base: str, compression: Compression, to: Path) -> int:
    """Of what the checkpoint adds, really built."""
    order = Order(path, image_format, base, True, compression)
    built = build(
        order, lambda _: Access(), lambda _: LayoutDestination(to, REFERENCE, Silent()), lambda sentence: None
    )
    manifest = oci.parse_document(LayoutImages(to).document(built.digest))
    assert isinstance(manifest, oci.Manifest)
    return sum(layer.size for layer in manifest.layers[0 if image_format == "archive" else 2 :])


@pytest.mark.parametrize("image_format", ["archive", "layered"])
@pytest.mark.parametrize("given", list(Compression))
def test_sizes_are_those_of_a_build(
    image_format: ImageFormat, given: Compression, write_checkpoint: WriteCheckpoint, tmp_path: Path
) -> None:
    path, base = write_checkpoint(crio(), given), BaseImage().write_layout(tmp_path / "base")
    found = _try(path, image_format, base)
    assert not found.estimated
    for cost in found.costs:
        assert cost.size == _layers_bytes(path, image_format, base, cost.compression, tmp_path / "out")


def test_of_a_large_archive_a_sample_is_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module, "SAMPLE_BYTES", 4 << 20)
    path = write_large_archive(tmp_path / "large.tar", 32 << 20)
    with tarfile.open(path) as archive, path.open("r+b") as file:
        file.seek(archive.getmember("checkpoint/pages-1.img").offset_data)
        for _ in range(32):
            file.write(os.urandom(1 << 19) + bytes(1 << 19))
    base = BaseImage().write_layout(tmp_path / "base")
    found = _try(path, "layered", base)
    assert found.estimated
    assert 4 << 20 <= found.measured_bytes < 5 << 20
    plain, gzip, zstd = found.costs
    assert plain.size == _layers_bytes(path, "layered", base, Compression.NONE, tmp_path / "out")
    for cost in (gzip, zstd):
        real = _layers_bytes(path, "layered", base, cost.compression, tmp_path / "out")
        assert real * 0.8 < cost.size < real * 1.2
        assert cost.seconds > 0


def _origins(registry: FakeRegistry, base_name: str, checkpoint: Path) -> list[str]:
    reference = oci.parse_reference(f"{registry.host}/ck:1")

    def destination(base: Image | None) -> Destination:
        images = base.images if base and isinstance(base.images, RegistryImages) else None
        return RegistryDestination(reference, Access(), Silent(), base=images)

    with prepared(Order(checkpoint, "layered", base_name), lambda _: Access(), lambda _: None) as ready:
        return [layer.origin for layer in trial(ready, destination(ready.base)).base_layers]


def test_where_the_bases_layers_come_from(start_registry: StartRegistry, write_checkpoint: WriteCheckpoint) -> None:
    path, here, elsewhere = write_checkpoint(), start_registry(), start_registry()
    own, foreign = BaseImage().push(here), BaseImage().push(elsewhere)
    assert _origins(here, own, path) == ["mounted", "mounted"]
    assert _origins(here, foreign, path) == ["copied", "copied"]
    here.add_blob("ck", BaseImage().layers[0])
    assert _origins(here, own, path) == ["there", "mounted"]
    assert {method for method, _, _ in here.requests} == {"GET", "HEAD"}, "nothing was changed"
