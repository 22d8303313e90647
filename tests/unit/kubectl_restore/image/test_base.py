from __future__ import annotations

import json
from pathlib import Path

import pytest

from kubectl_restore.image.access import Access
from kubectl_restore.image.base import is_archive_checkpoint, is_layered_checkpoint, named_base, recorded_base
from shared import contract, oci
from shared.errors import Refused, RestoreError
from shared.metadata import BaseImage as Recorded
from tests.support import base_image
from tests.support.fake_registry import Faults
from tests.unit.kubectl_restore.conftest import StartRegistry

AMD64 = oci.Platform("linux", "amd64")
NAME = "registry.example/app:1"
OTHER = "sha256:" + "0" * 64


def _access(_: str) -> Access:
    return Access("always")


def _recorded(host: str, digest: str) -> Recorded:
    return Recorded(f"{host}/app:1", f"{host}/app@{digest}", digest, None)


def test_the_recorded_digest_is_read_from_its_registry(start_registry: StartRegistry) -> None:
    registry, base = start_registry(), base_image.BaseImage()
    base.push(registry)
    image = recorded_base(_recorded(registry.host, base.digest), AMD64, _access)
    assert (image.manifest_digest, image.diff_ids, image.index_digest) == (base.digest, tuple(base.diff_ids), None)
    assert image.platform == AMD64


def test_of_an_index_the_part_for_the_dumps_machine_is_taken(start_registry: StartRegistry) -> None:
    registry, base = start_registry(), base_image.BaseImage()
    index = base.push_index(registry, base_image.BaseImage(architecture="arm64"))
    image = recorded_base(_recorded(registry.host, index), oci.Platform("linux", "arm64"), _access)
    assert image.platform.architecture == "arm64"
    assert image.index_digest == index
    with pytest.raises(RestoreError, match="has no image for linux/s390x") as refusal:
        recorded_base(_recorded(registry.host, index), oci.Platform("linux", "s390x"), _access)
    assert refusal.value.reason == "PlatformMissing"


def test_a_registry_that_answers_with_something_else_is_not_believed(start_registry: StartRegistry) -> None:
    registry, base = start_registry(faults=Faults(wrong_digest=True)), base_image.BaseImage()
    base.push(registry)
    with pytest.raises(RestoreError, match="something else") as refusal:
        recorded_base(_recorded(registry.host, base.digest), AMD64, _access)
    assert refusal.value.reason == "ImageInvalid"


def test_an_image_id_is_found_by_the_tag_that_was_used(start_registry: StartRegistry) -> None:
    registry, base = start_registry(), base_image.BaseImage()
    name = base.push(registry)
    image = recorded_base(Recorded(name, "x", None, base.config_digest), AMD64, _access)
    assert image.manifest_digest == base.digest


def test_a_tag_that_has_moved_is_refused(start_registry: StartRegistry) -> None:
    registry = start_registry()
    name = base_image.BaseImage(labels={"new": "1"}).push(registry)
    with pytest.raises(Refused, match=f"names the image .* now.*{OTHER}") as refusal:
        recorded_base(Recorded(name, "x", None, OTHER), AMD64, _access)
    assert refusal.value.reason == "BaseMoved"


@pytest.mark.parametrize("recorded", [Recorded(None, None, None, None), Recorded(NAME, None, None, None)])
def test_a_tag_alone_is_not_enough(recorded: Recorded) -> None:
    with pytest.raises(RestoreError, match="does not record by digest") as refusal:
        recorded_base(recorded, AMD64, _access)
    assert refusal.value.reason == "BaseUnknown"


@pytest.mark.parametrize("kind", ["registry", "layout", "archive"])
def test_the_user_may_name_a_registry_a_layout_or_an_archive(
    kind: str, start_registry: StartRegistry, tmp_path: Path
) -> None:
    base = base_image.BaseImage()
    if kind == "registry":
        wanted = base.push(start_registry())
    else:
        wanted = base.write_layout(tmp_path / "b") if kind == "layout" else base.write_archive(tmp_path / "b")
    image, warnings = named_base(wanted, _recorded("nowhere.invalid", base.digest), AMD64, _access)
    assert image.manifest_digest == base.digest
    assert warnings == []


def test_a_docker_image_is_a_base_too(start_registry: StartRegistry) -> None:
    registry, base = start_registry(), base_image.BaseImage(docker=True)
    image, _ = named_base(base.push(registry), _recorded(registry.host, base.digest), AMD64, _access)
    assert image.manifest.layers[0].as_oci().media_type == oci.LAYER_GZIP


def test_the_same_layers_packed_again_are_the_same_image(start_registry: StartRegistry, tmp_path: Path) -> None:
    registry, base = start_registry(), base_image.BaseImage()
    base.push(registry)
    packed_again = base_image.BaseImage(compress_level=1)
    assert packed_again.digest != base.digest
    wanted = packed_again.write_layout(tmp_path)
    image, warnings = named_base(wanted, _recorded(registry.host, base.digest), AMD64, _access)
    assert image.manifest_digest == packed_again.digest
    assert warnings == []


def test_other_layers_are_refused_and_named(start_registry: StartRegistry, tmp_path: Path) -> None:
    registry, base = start_registry(), base_image.BaseImage()
    base.push(registry)
    other = base_image.BaseImage(files=[base.files[0], {"etc/motd": b"other"}])
    words = f"not the image .*its layer 2 is {other.diff_ids[1]}, the right one's is {base.diff_ids[1]}.*--base"
    with pytest.raises(Refused, match=words) as refusal:
        named_base(other.write_layout(tmp_path), _recorded(registry.host, base.digest), AMD64, _access)
    assert refusal.value.reason == "BaseMismatch"


def test_a_layer_less_is_refused_too(start_registry: StartRegistry, tmp_path: Path) -> None:
    registry, base = start_registry(), base_image.BaseImage()
    base.push(registry)
    shorter = base_image.BaseImage(files=base.files[:1])
    with pytest.raises(Refused, match="it has 1 layers, the right one has 2"):
        named_base(shorter.write_layout(tmp_path), _recorded(registry.host, base.digest), AMD64, _access)


def test_the_right_image_in_the_same_place_is_found_there(start_registry: StartRegistry) -> None:
    """The recorded name may be of another cluster: the digest is looked for beside the named image first."""
    registry, base = start_registry(), base_image.BaseImage()
    base.push(registry, tag="right")
    wanted = base_image.BaseImage(files=[{"x": b"x"}]).push(registry, tag="wrong")
    with pytest.raises(Refused, match="its layer 1"):
        named_base(wanted, _recorded("nowhere.invalid", base.digest), AMD64, _access)


def test_what_cannot_be_compared_is_a_warning(tmp_path: Path) -> None:
    base = base_image.BaseImage()
    wanted = base.write_layout(tmp_path)
    _, warnings = named_base(wanted, _recorded("nowhere.invalid", OTHER), AMD64, _access)
    assert len(warnings) == 1
    assert "nothing proves" in warnings[0]
    assert "no host named nowhere.invalid" in warnings[0]
    _, warnings = named_base(wanted, Recorded(None, None, None, None), AMD64, _access)
    assert "does not record" in warnings[0]


def test_an_image_id_matches_by_config(tmp_path: Path) -> None:
    base = base_image.BaseImage()
    recorded = Recorded(NAME, "x", None, base.config_digest)
    assert named_base(base.write_layout(tmp_path), recorded, AMD64, _access)[1] == []


def _layout_of_two(path: Path) -> tuple[base_image.BaseImage, base_image.BaseImage]:
    one, two = base_image.BaseImage(), base_image.BaseImage(labels={"two": "2"})
    two.write_layout(path)
    entries = json.loads(two.index("x.example/two:2"))["manifests"]
    one.write_layout(path)
    index = json.loads((path / "index.json").read_bytes())
    index["manifests"] += entries
    (path / "index.json").write_text(json.dumps(index))
    return one, two


def test_of_several_images_in_a_layout_the_recorded_or_named_one_is_taken(tmp_path: Path) -> None:
    one, two = _layout_of_two(tmp_path)

    def choose(wanted: str, recorded: Recorded) -> str:
        return named_base(wanted, recorded, AMD64, _access)[0].manifest_digest

    assert choose(f"oci:{tmp_path}", _recorded("x.example", two.digest)) == two.digest
    assert choose(f"oci:{tmp_path}", Recorded(NAME, None, None, None)) == one.digest
    assert choose(f"oci:{tmp_path}:x.example/two:2", Recorded(None, None, None, None)) == two.digest
    for wanted in (f"oci:{tmp_path}", f"oci:{tmp_path}:x.example/three"):
        with pytest.raises(RestoreError, match=f"has no image .*it has {NAME}, x.example/two:2") as refusal:
            choose(wanted, Recorded(None, None, None, None))
        assert refusal.value.reason == "BaseUnknown"


@pytest.mark.parametrize("wanted", ["oci:{}/missing", "oci-archive:{}/missing.tar", "oci:{}"])
def test_a_place_that_is_none_is_named(wanted: str, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match=str(tmp_path)) as refusal:
        named_base(wanted.format(tmp_path), Recorded(None, None, None, None), AMD64, _access)
    assert refusal.value.reason == "LayoutInvalid"


def test_a_config_that_does_not_fit_its_layers_is_refused(start_registry: StartRegistry) -> None:
    registry, base = start_registry(), base_image.BaseImage()
    document = json.loads(base.manifest)
    document["layers"] = document["layers"][:1]
    base.push(registry)
    digest = registry.add_manifest("app", "short", oci.encode(document))
    with pytest.raises(RestoreError, match="1 layers, but 2 diff_ids") as refusal:
        recorded_base(_recorded(registry.host, digest), AMD64, _access)
    assert refusal.value.reason == "ImageInvalid"


@pytest.mark.parametrize("by", ["annotation", "label"])
def test_checkpoint_images_are_recognised_as_such(by: str, tmp_path: Path) -> None:
    for key, value, layered in (
        (contract.IMAGE_FORMAT, "layered", True),
        (contract.IMAGE_FORMAT, "archive", False),
        (contract.TRIGGER_CRIO, "app", False),
    ):
        where = {"annotations" if by == "annotation" else "labels": {key: value}}
        wanted = base_image.BaseImage(**where).write_layout(tmp_path / f"{key}-{value}".replace("/", "-"))  # type: ignore[arg-type]
        image, _ = named_base(wanted, Recorded(None, None, None, None), AMD64, _access)
        assert is_layered_checkpoint(image) is layered
        assert is_archive_checkpoint(image) is not layered
    plain, _ = named_base(
        base_image.BaseImage().write_layout(tmp_path / "plain"), Recorded(None, None, None, None), AMD64, _access
    )
    assert not is_layered_checkpoint(plain)
    assert not is_archive_checkpoint(plain)
