"""The directory CRIU restores from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from nri_plugin.containerd import containerd_pb2 as api
from nri_plugin.containerd.client import Containerd
from nri_plugin.restore import mounting
from nri_plugin.restore.images import StoredImage, Views

IMAGE = StoredImage("sha256:" + "1" * 64, "", "sha256:" + "2" * 64, (), {})


@pytest.fixture
def views(tmp_path: Path) -> Views:
    views = Views(cast(Containerd, None), tmp_path)
    original = views.root(IMAGE) / "checkpoint"
    original.mkdir(parents=True)
    for name in ("inventory.img", "core-1.img"):
        (original / name).write_bytes(b"dumped")
    return views


def test_images_are_linked_and_replaced_ones_are_files(views: Views) -> None:
    directory = views.link_images(IMAGE, ["inventory.img", "core-1.img"], {"inventory.img": b"ours"})
    assert {path.name: (path.is_symlink(), path.read_bytes()) for path in directory.iterdir()} == {
        "inventory.img": (False, b"ours"),
        "core-1.img": (True, b"dumped"),
    }


@pytest.mark.parametrize("before", [{}, {"inventory.img": b"of an earlier worker"}])
def test_image_is_replaced_in_one_step_never_in_the_view(views: Views, before: dict[str, bytes]) -> None:
    directory = views.link_images(IMAGE, ["inventory.img"], before)
    with (directory / "inventory.img").open("rb") as criu:
        views.link_images(IMAGE, ["inventory.img"], {"inventory.img": b"ours"})
        assert criu.read() == before.get("inventory.img", b"dumped")
    assert (directory / "inventory.img").read_bytes() == b"ours"
    assert (views.root(IMAGE) / "checkpoint/inventory.img").read_bytes() == b"dumped"


def test_view_on_the_disk_of_the_plans_is_mounted_once(tmp_path: Path) -> None:
    bind = api.Mount(type="bind", source=str(tmp_path))
    runtime = SimpleNamespace(create_lease=lambda *_: None, hold=lambda *_: None, view=lambda *_, **__: [bind])
    views = Views(cast(Containerd, runtime), tmp_path / "plans")
    try:
        root = views.mount(IMAGE)
        views.mount(IMAGE)
        assert mounting.mounts_below(tmp_path) == [root]
    finally:
        while mounting.mounts_below(tmp_path):
            mounting.unmount(root)
