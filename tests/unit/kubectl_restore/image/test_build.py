from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kubectl_restore.image import registry as registry_module
from kubectl_restore.image import upload as upload_module
from kubectl_restore.image.access import Access
from kubectl_restore.image.base import named_base
from kubectl_restore.image.build import Built, Order, build
from kubectl_restore.image.destination import Destination
from kubectl_restore.image.images import Image, Images
from kubectl_restore.image.layout import LayoutDestination, LayoutImages
from kubectl_restore.image.oci_archive import ArchiveDestination, ArchiveImages
from kubectl_restore.image.progress import Silent
from kubectl_restore.image.registry_images import RegistryDestination, RegistryImages
from shared import contract, oci
from shared.compression import Compression, sniff
from shared.contract import ImageFormat
from shared.errors import CheckpointInvalid, Refused, RestoreError, Unavailable
from shared.metadata import BaseImage as BaseRecord
from tests.support.base_image import BaseImage
from tests.support.checkpoints import (
    SyntheticDump,
    config_dump,
    containerd,
    crio,
    podman,
    set_aarch64,
    tar_of,
    write_directory,
)
from tests.support.fake_registry import FakeRegistry, Faults
from tests.support.pulled_image import PulledImage, decompressed, pull
from tests.unit.kubectl_restore.conftest import StartRegistry, WriteCheckpoint

PLACES = ["layout", "archive", "registry"]
NAME = "shop/ck:1"
_MEDIA_TYPES = {
    Compression.NONE: "application/vnd.oci.image.layer.v1.tar",
    Compression.GZIP: "application/vnd.oci.image.layer.v1.tar+gzip",
    Compression.ZSTD: "application/vnd.oci.image.layer.v1.tar+zstd",
}
"""image-spec layer.md."""


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_RETRY_PAUSES_S", (0.0, 0.0))


def _access(_: str) -> Access:
    return Access()


@dataclass
class Place:
    """Somewhere to build to, and to read back from."""

    open: Callable[[Image | None], Destination]
    images: Callable[[], Images]
    to_disk: bool = False
    warnings: list[str] = field(default_factory=list)

    def build(
        self,
        checkpoint: Path,
        image_format: ImageFormat | None = None,
        base: str | None = None,
        compression: Compression | None = None,
    ) -> Built:
        order = Order(checkpoint, image_format, base, self.to_disk, compression)
        return build(order, _access, self.open, self.warnings.append)

    def pull(self, built: Built) -> PulledImage:
        image = pull(self.images(), built.digest)
        blobs = [image.manifest["config"], *image.manifest["layers"]]
        assert built.size == len(oci.encode(image.manifest)) + sum(blob["size"] for blob in blobs)
        return image


def _in_registry(host: str) -> Place:
    reference = oci.parse_reference(f"{host}/{NAME}")

    def open_destination(base: Image | None) -> Destination:
        images = base.images if base and isinstance(base.images, RegistryImages) else None
        return RegistryDestination(reference, Access(), Silent(), base=images)

    return Place(open_destination, lambda: RegistryImages(reference, Access()))


def _in_layout(path: Path) -> Place:
    reference = oci.parse_reference(f"x.example/{NAME}")
    return Place(lambda _: LayoutDestination(path, reference, Silent()), lambda: LayoutImages(path), to_disk=True)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "layout":
        yield _in_layout(tmp_path / "out")
    elif request.param == "archive":
        path, reference = tmp_path / "out.tar", oci.parse_reference(f"x.example/{NAME}")
        yield Place(lambda _: ArchiveDestination(path, reference, Silent()), lambda: ArchiveImages(path), to_disk=True)
    else:
        with FakeRegistry() as registry:
            yield _in_registry(registry.host)


@pytest.fixture
def layout(tmp_path: Path) -> Place:
    return _in_layout(tmp_path / "out")


@pytest.fixture
def base(tmp_path: Path) -> str:
    return BaseImage().write_layout(tmp_path / "base")


@pytest.mark.parametrize("compression", list(Compression))
def test_the_archive_format_is_the_archive_and_nothing_else(
    compression: Compression, place: Place, base: str, write_checkpoint: WriteCheckpoint
) -> None:
    path = write_checkpoint(compression=compression)
    built = place.build(path, "archive", base)
    image = place.pull(built)
    assert image.layers == [path.read_bytes()]
    assert image.manifest["annotations"][contract.TRIGGER_CONTAINERD] == "app"
    assert image.config["config"]["Volumes"] == {"/data": {}}
    assert image.config["config"]["Cmd"] == ["/bin/app", "--serve"]
    assert image.config["created"] == "2026-11-24T03:24:13.861955Z"
    assert (image.config["os"], image.config["architecture"]) == ("linux", "amd64")
    assert built.image_format == "archive"


@pytest.mark.parametrize("given", list(Compression))
@pytest.mark.parametrize("wanted", list(Compression))
def test_layers_of_the_checkpoint_are_compressed_as_wanted(
    given: Compression, wanted: Compression, place: Place, base: str, write_checkpoint: WriteCheckpoint
) -> None:
    """``pull`` compares every digest, size and diff ID."""
    path = write_checkpoint(crio(), given)
    built = place.build(path, "archive", base, wanted)
    image = place.pull(built)
    [layer] = image.manifest["layers"]
    assert layer["mediaType"] == _MEDIA_TYPES[wanted]
    assert sniff(image.layers[0][:4]) is wanted
    assert decompressed(image.layers[0]) == tar_of(crio())
    assert place.build(path, "archive", base, wanted) == built, "of the same input the same image"
    layered = place.pull(place.build(path, "layered", base, wanted))
    assert [each["mediaType"] for each in layered.manifest["layers"][2:]] == [_MEDIA_TYPES[wanted]] * 2
    assert layered.layers[:2] == BaseImage().layers, "the base's are as they were"
    assert layered.root()[".nri-restore/config.dump"][1] == crio()["config.dump"]
    assert "etc/motd" not in layered.root()


@pytest.mark.parametrize("files", [containerd, crio, podman])
@pytest.mark.parametrize("compression", [Compression.NONE, Compression.ZSTD])
def test_the_layered_format_is_the_containers_root_and_the_checkpoint(
    files: Callable[[], dict[str, bytes]],
    compression: Compression,
    place: Place,
    base: str,
    write_checkpoint: WriteCheckpoint,
) -> None:
    built = place.build(write_checkpoint(files(), compression), None, base)
    image = place.pull(built)
    assert built.image_format == "layered"
    assert image.layers[:2] == BaseImage().layers
    assert len(image.layers) == 4
    root = image.root()
    assert root["bin/app"][1] == b"#!"
    assert root["root/count"][1] == b"5\n"
    assert root["root/keep"][1] == b"1"
    assert "etc/motd" not in root
    assert root[".nri-restore/"][0] == 0o700
    for name, content in files().items():
        if name.startswith("checkpoint/") or name in ("config.dump", "spec.dump"):
            assert root[f".nri-restore/{name}"] == (0o600, content)
    assert image.manifest["annotations"][contract.BASE_DIGEST] == BaseImage().digest
    assert image.config["config"]["Labels"][contract.IMAGE_FORMAT] == "layered"
    assert image.config["config"]["Cmd"] == ["/bin/app", "--serve"]
    assert [line["created_by"] for line in image.config["history"]][:3] == ["FROM scratch", "ENV BASE=1", "COPY . /"]


def test_an_unpacked_checkpoint_builds_either_format(place: Place, base: str, tmp_path: Path) -> None:
    path = write_directory(tmp_path / "unpacked", containerd())
    assert place.pull(place.build(path, "archive", base)).root()["config.dump"][1] == containerd()["config.dump"]
    assert place.pull(place.build(path, "layered", base)).root()["root/count"][1] == b"5\n"


def test_the_same_checkpoint_always_gives_the_same_digest(
    place: Place, layout: Place, base: str, write_checkpoint: WriteCheckpoint
) -> None:
    for image_format in ("archive", "layered"):
        assert place.build(write_checkpoint(), image_format, base) == layout.build(
            write_checkpoint(), image_format, base
        )


def test_the_recorded_base_is_found_without_being_named(
    start_registry: StartRegistry, layout: Place, write_checkpoint: WriteCheckpoint
) -> None:
    registry = start_registry()
    BaseImage().push(registry)
    config = config_dump(rootfsImageRef=f"{registry.host}/app@{BaseImage().digest}")
    built = layout.build(write_checkpoint(containerd(config=config)))
    assert built.image_format == "layered"
    assert built.base_digest == BaseImage().digest
    assert layout.warnings == []


def _missing_base() -> dict[str, bytes]:
    return containerd(config=config_dump(rootfsImageRef=f"nowhere.invalid/app@{BaseImage().digest}"))


def test_without_the_base_the_default_is_the_archive_format_with_a_warning(
    layout: Place, write_checkpoint: WriteCheckpoint
) -> None:
    built = layout.build(write_checkpoint(_missing_base()))
    image = layout.pull(built)
    assert built.image_format == "archive"
    assert len(layout.warnings) == 1
    for words in ("building the archive format", "no host named nowhere.invalid", "--base", "StopSignal"):
        assert words in layout.warnings[0]
    assert image.config["config"]["Env"] == ["PATH=/bin"]
    assert image.config["architecture"] == "amd64"


def test_the_archive_format_without_the_base_says_what_is_missing(
    layout: Place, write_checkpoint: WriteCheckpoint
) -> None:
    layout.build(write_checkpoint(_missing_base()), "archive")
    assert len(layout.warnings) == 1
    assert "Volumes" in layout.warnings[0]


def test_the_layered_format_without_the_base_is_an_error_that_says_what_to_do(
    layout: Place, write_checkpoint: WriteCheckpoint, tmp_path: Path
) -> None:
    with pytest.raises(RestoreError, match=r"needs the base image's layers: .*--base.*--format archive") as refusal:
        layout.build(write_checkpoint(_missing_base()), "layered")
    assert refusal.value.reason == "BaseMissing"
    assert not (tmp_path / "out").exists()


def test_a_base_that_was_named_and_cannot_be_read_is_an_error(layout: Place, write_checkpoint: WriteCheckpoint) -> None:
    with pytest.raises(RestoreError, match=r"nowhere\.invalid"):
        layout.build(write_checkpoint(), None, "nowhere.invalid/app:1")


def test_the_base_of_another_machine_is_refused(
    layout: Place, tmp_path: Path, write_checkpoint: WriteCheckpoint
) -> None:
    wanted = BaseImage(architecture="arm64").write_layout(tmp_path / "arm")
    with pytest.raises(Refused, match="for linux/arm64, but the checkpoint is of a linux/amd64 process") as refusal:
        layout.build(write_checkpoint(), "layered", wanted)
    assert refusal.value.reason == "BaseMismatch"


def test_the_machine_is_the_dumps(layout: Place, write_checkpoint: WriteCheckpoint) -> None:
    dump = SyntheticDump.of_processes()
    set_aarch64(dump)
    files = containerd(dump, config=config_dump(rootfsImageRef=f"nowhere.invalid/app@{BaseImage().digest}"))
    assert layout.pull(layout.build(write_checkpoint(files))).config["architecture"] == "arm64"


def test_a_second_checkpoint_does_not_carry_the_memory_of_the_first(
    layout: Place, base: str, tmp_path: Path, write_checkpoint: WriteCheckpoint
) -> None:
    first = layout.build(write_checkpoint(), "layered", base)
    second_files = containerd(SyntheticDump.of_processes(2))
    second = layout.build(write_checkpoint(second_files), "layered", f"oci:{tmp_path / 'out'}:x.example/{NAME}")
    image = layout.pull(second)
    assert second.digest != first.digest
    assert image.layers[:3] == layout.pull(first).layers[:3]
    assert len(image.layers) == 5
    assert image.root()[".nri-restore/checkpoint/core-2.img"][1] == second_files["checkpoint/core-2.img"]
    memory = layout.pull(first).layers[3]
    assert memory not in image.layers


def test_an_archive_checkpoint_is_no_base_to_build_layers_on(
    layout: Place, base: str, tmp_path: Path, write_checkpoint: WriteCheckpoint
) -> None:
    layout.build(write_checkpoint(), "archive", base)
    wanted = f"oci:{tmp_path / 'out'}"
    with pytest.raises(Refused, match=r"itself a checkpoint in archive format.*--format archive") as refusal:
        layout.build(write_checkpoint(), "layered", wanted)
    assert refusal.value.reason == "BaseIsCheckpoint"
    layout.warnings.clear()
    built = layout.build(write_checkpoint(), None, wanted)
    assert built.image_format == "archive"
    assert any("itself a checkpoint" in warning for warning in layout.warnings)
    assert layout.pull(built).config["config"]["Volumes"] == {"/data": {}}, (
        "of the first base, by way of the first image"
    )


def test_layers_of_a_base_in_the_same_registry_are_mounted(
    start_registry: StartRegistry, write_checkpoint: WriteCheckpoint
) -> None:
    registry = start_registry()
    wanted = BaseImage().push(registry)
    place = _in_registry(registry.host)
    place.pull(place.build(write_checkpoint(), "layered", wanted))
    assert registry.count("POST", "mount=.*from=app") == 2
    assert registry.count("PATCH") == 3, "diff, checkpoint and config"
    before = len(registry.requests)
    place.build(write_checkpoint(), "layered", wanted)
    assert not [path for _, path, _ in registry.requests[before:] if "mount=" in path], "they are there already"


def test_layers_are_copied_when_they_cannot_be_mounted(
    start_registry: StartRegistry, write_checkpoint: WriteCheckpoint
) -> None:
    refusing, other = start_registry(faults=Faults(mount=False)), start_registry()
    for source, target in ((refusing, refusing), (other, refusing)):
        place = _in_registry(target.host)
        place.pull(place.build(write_checkpoint(), "layered", BaseImage().push(source)))
        target.blobs.clear()
    assert not refusing.uploads


def test_a_base_that_breaks_off_while_it_is_read_is_read_on_for_a_push(
    start_registry: StartRegistry, write_checkpoint: WriteCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "PAUSES_S", (0.0, 0.0))
    source, target = start_registry(), start_registry()
    wanted, place = BaseImage().push(source), _in_registry(target.host)
    base = named_base(wanted, BaseRecord(None, None, None, None), oci.Platform("linux", "amd64"), _access)[0]
    source.faults.cut_blobs = 1
    with place.open(base) as destination:
        destination.copy(base.manifest.layers[0], base)
    assert source.faults.cut_blobs == 0
    assert BaseImage().layers[0] in target.blobs.values()
    assert place.build(write_checkpoint(), "layered", wanted).image_format == "layered"


def test_a_base_that_breaks_off_while_it_is_read_fails_a_layout(
    start_registry: StartRegistry, layout: Place, tmp_path: Path
) -> None:
    source = start_registry()
    wanted = BaseImage().push(source)
    base = named_base(wanted, BaseRecord(None, None, None, None), oci.Platform("linux", "amd64"), _access)[0]
    source.faults.cut_blobs = 1
    with pytest.raises(Unavailable, match="broke off") as refusal, layout.open(base) as destination:
        destination.copy(base.manifest.layers[0], base)
    assert refusal.value.reason == "BaseInterrupted"
    assert not (tmp_path / "out").exists()


def test_a_layer_that_arrives_damaged_from_another_registry_is_refused(
    start_registry: StartRegistry, write_checkpoint: WriteCheckpoint
) -> None:
    source, target = start_registry(), start_registry()
    wanted = BaseImage().push(source)
    layer = BaseImage().layers[0]
    source.blobs["app", oci.digest_of(layer)] = b"X" + layer[1:]
    with pytest.raises(RestoreError, match="for the layer") as refusal:
        _in_registry(target.host).build(write_checkpoint(), "layered", wanted)
    assert refusal.value.reason == "ImageInvalid"
    assert not target.manifests


def test_a_truncated_archive_is_refused_before_anything_is_written(tmp_path: Path, layout: Place, base: str) -> None:
    whole = tar_of(containerd())
    path = tmp_path / "cut.tar"
    for size in [*range(0, len(whole) - 512, 4096), len(whole) - 512]:
        path.write_bytes(whole[:size])
        for image_format in ("archive", "layered"):
            with pytest.raises(CheckpointInvalid):
                layout.build(path, image_format, base)
    assert not (tmp_path / "out").exists()


def test_an_incomplete_dump_is_refused_before_anything_is_written(
    tmp_path: Path, layout: Place, base: str, write_checkpoint: WriteCheckpoint
) -> None:
    files = containerd()
    files["checkpoint/pages-1.img"] = files["checkpoint/pages-1.img"][:-4096]
    with pytest.raises(CheckpointInvalid) as refusal:
        layout.build(write_checkpoint(files), None, base)
    assert refusal.value.reason == "PagesSizeMismatch"
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_a_time_takes_its_files(
    layout: Place, base: str, write_checkpoint: WriteCheckpoint
) -> None:
    path = write_checkpoint(containerd(config=config_dump(checkpointedTime="")))
    created = layout.pull(layout.build(path, "layered", base)).config["created"]
    assert created.endswith("Z")
    assert created > "2020"


def test_a_base_whose_history_does_not_fit_gives_a_config_without_history(
    layout: Place, tmp_path: Path, write_checkpoint: WriteCheckpoint
) -> None:
    image = BaseImage()
    config = json.loads(image.config)
    config["history"] = [{"created_by": "squashed"}]
    files = image.layout_files()
    del files[f"blobs/{image.config_digest.replace(':', '/')}"]
    manifest = json.loads(image.manifest)
    content = oci.encode(config)
    manifest["config"] |= {"digest": oci.digest_of(content), "size": len(content)}
    index = json.loads(image.index())
    encoded = oci.encode(manifest)
    index["manifests"][0] |= {"digest": oci.digest_of(encoded), "size": len(encoded)}
    files["index.json"] = oci.encode(index)
    for blob in (content, encoded):
        files[f"blobs/{oci.digest_of(blob).replace(':', '/')}"] = blob
    wanted = f"oci:{write_directory(tmp_path / 'squashed', files)}"
    built = layout.build(write_checkpoint(), "layered", wanted)
    stored = (tmp_path / "out/blobs" / built.digest.replace(":", "/")).read_bytes()
    stored_config = (tmp_path / "out/blobs" / json.loads(stored)["config"]["digest"].replace(":", "/")).read_bytes()
    assert json.loads(stored_config)["history"] == []


@pytest.mark.parametrize("image_format", ["archive", "layered"])
@pytest.mark.parametrize("to_disk", [True, False])
def test_an_archive_that_changes_meanwhile_is_refused_and_nothing_stays(
    image_format: ImageFormat,
    to_disk: bool,
    layout: Place,
    base: str,
    tmp_path: Path,
    write_checkpoint: WriteCheckpoint,
) -> None:
    path = write_checkpoint()
    undisturbed = layout.open

    def disturbed(image: Image | None) -> Destination:
        with path.open("r+b") as archive:
            archive.seek(-2048, 2)
            archive.write(b"other")
        return undisturbed(image)

    layout.open, layout.to_disk = disturbed, to_disk
    with pytest.raises(CheckpointInvalid, match="changed while it was read") as refusal:
        layout.build(path, image_format, base)
    assert refusal.value.reason == "FileChanged"
    assert not (tmp_path / "out").exists()
