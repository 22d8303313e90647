"""What is read of CRI-O's store, and what is not believed; tests/e2e/test_crio.py reads a real one."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from nri_plugin.containerd.client import NotFound
from nri_plugin.crio.store import CrioStore, blob_file
from nri_plugin.restore.images import find_image
from shared.errors import Refused, RestoreError, Unavailable
from shared.oci import chain_id

BASE, TOP = "b" * 64, "c" * 64
DIFFS = [f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"]


def digest(data: bytes) -> str:
    return f"sha256:{sha256(data).hexdigest()}"


class Kept:
    """A store with one image of two layers, which a test spoils."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder / "storage", folder / "run"
        labels = {"io.nri-restore.checkpoint.format": "layered"}
        self.config = json.dumps({"rootfs": {"diff_ids": DIFFS}, "config": {"Labels": labels}}).encode()
        self.id = sha256(self.config).hexdigest()
        layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": DIFFS[0], "size": 10}
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": f"sha256:{self.id}",
                    "size": len(self.config),
                },
                "layers": [layer, {**layer, "digest": DIFFS[1]}],
            }
        ).encode()
        self.image: dict[str, Any] = {
            "id": self.id,
            "digest": digest(self.manifest),
            "names": ["registry.example/counter:1"],
            "layer": TOP,
            "big-data-digests": {"manifest": digest(self.manifest), f"sha256:{self.id}": f"sha256:{self.id}"},
        }
        self.layers: list[dict[str, Any]] = [
            {"id": TOP, "parent": BASE, "diff-digest": DIFFS[1]},
            {"id": BASE, "diff-digest": DIFFS[0]},
        ]
        (self.folder / f"overlay/{TOP}/diff").mkdir(parents=True)
        self.blob("manifest", self.manifest)
        self.blob(f"sha256:{self.id}", self.config)
        self.write()

    def blob(self, name: str, data: bytes) -> None:
        path = self.folder / "overlay-images" / self.id / blob_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def write(self) -> None:
        for name, content in (
            ("overlay-images/images.json", [self.image]),
            ("overlay-layers/layers.json", self.layers),
        ):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))

    @property
    def store(self) -> CrioStore:
        return CrioStore(self.folder, self.run)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_image_is_found_by_its_id_with_labels_and_names(kept: Kept) -> None:
    image = find_image(kept.store, f"sha256:{kept.id}")
    assert image.layered
    assert image.chain_id == chain_id(DIFFS)
    assert [each.name for each in kept.store.images_by_digest(image.target)] == ["registry.example/counter:1"]


def test_view_is_the_topmost_layer_of_the_image(kept: Kept) -> None:
    (mount,) = kept.store.view("key", chain_id(DIFFS), lease="")
    assert (mount.type, mount.source) == ("bind", str(kept.folder / f"overlay/{TOP}/diff"))


def test_layer_with_other_content_below_it_is_not_the_image(kept: Kept) -> None:
    kept.layers[1]["diff-digest"] = f"sha256:{'3' * 64}"
    kept.write()
    with pytest.raises(NotFound):
        kept.store.view("key", chain_id(DIFFS), lease="")


def test_layers_in_a_loop_end(kept: Kept) -> None:
    kept.layers[1]["parent"] = TOP
    kept.write()
    with pytest.raises(NotFound):
        kept.store.view("key", chain_id(DIFFS), lease="")


def test_link_in_place_of_a_layer_is_not_followed(kept: Kept) -> None:
    layer = kept.folder / f"overlay/{TOP}/diff"
    layer.rmdir()
    layer.symlink_to("/")
    with pytest.raises(NotFound):
        kept.store.view("key", chain_id(DIFFS), lease="")


def test_changed_manifest_is_found(kept: Kept) -> None:
    kept.blob("manifest", kept.manifest + b" ")
    with pytest.raises(Unavailable, match="pull the image again") as caught:
        find_image(kept.store, f"sha256:{kept.id}")
    assert caught.value.reason == "ImageDamaged"


def test_id_that_leads_elsewhere_is_no_image(kept: Kept) -> None:
    kept.image["id"] = "../../etc"
    kept.write()
    with pytest.raises(NotFound):
        kept.store.image_target("sha256:../../etc")


def test_missing_store_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match=r"images\.json is not there"):
        CrioStore(tmp_path, tmp_path).image_target("x")
    with pytest.raises(Unavailable, match=r"runtime\.storage_run"):
        CrioStore(tmp_path, tmp_path).container_ids()


def test_record_of_a_container_is_its_config_once_that_is_whole(kept: Kept) -> None:
    file = kept.run / "overlay-containers" / TOP / "userdata/config.json"
    file.parent.mkdir(parents=True)
    text = json.dumps({"root": {"path": "/m"}, "annotations": {"io.kubernetes.cri-o.LogPath": "/log"}}, indent="\t")
    for written in (None, text[:40]):
        if written is not None:
            file.write_text(written)
        with pytest.raises(NotFound):
            kept.store.container(TOP)
    file.write_text(text)
    record = kept.store.container(TOP)
    assert (record.snapshot_key, record.spec.value) == ("/m", text.encode())
    assert kept.store.container_ids() == {TOP}


def test_what_only_containerd_can_do_is_refused_with_what_to_do(kept: Kept) -> None:
    with pytest.raises(Refused, match="--format layered") as caught:
        kept.store.prepare("key", "parent", lease="")
    assert caught.value.reason == "LayeredImageNeeded"
