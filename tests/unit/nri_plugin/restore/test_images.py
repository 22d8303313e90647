"""The views of checkpoint images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from nri_plugin.containerd import containerd_pb2 as api
from nri_plugin.containerd.client import Containerd
from nri_plugin.restore import mounting
from nri_plugin.restore.images import StoredImage, Views

IMAGE = StoredImage("sha256:" + "1" * 64, "", "sha256:" + "2" * 64, (), {})


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
