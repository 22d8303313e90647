from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from nri_plugin.containerd import containerd_pb2 as api
from nri_plugin.containerd.client import Containerd
from nri_plugin.restore import rootfs
from nri_plugin.restore.images import StoredImage
from nri_plugin.restore.plan import Plan
from nri_plugin.restore.pull_rights import Puller
from shared import oci
from shared.archive import open_checkpoint
from shared.errors import Refused, RestoreError, Unavailable
from shared.metadata import read_checkpoint
from tests.support import checkpoints

KEY = "container"
DIFF_IDS = tuple(f"sha256:{letter * 64}" for letter in "abcde")
BASE = StoredImage("sha256:" + "1" * 64, "", "sha256:" + "2" * 64, DIFF_IDS[:2], {})
ARCHIVE = StoredImage("sha256:" + "3" * 64, "", "sha256:" + "4" * 64, DIFF_IDS[4:], {})
LAYERED = replace(ARCHIVE, diff_ids=DIFF_IDS, annotations={"io.nri-restore.checkpoint.format": "layered"})


class FakeContainerd:
    """One container's overlay, and what was asked to be done to it."""

    def __init__(self, folder: Path) -> None:
        self.upper = folder / "upper"
        self.upper.mkdir()
        self.options = ["index=off", f"workdir={folder}/work", f"upperdir={self.upper}", "lowerdir=/lower/2:/lower/1"]
        self.type = "overlay"
        self.applied: list[api.Descriptor] = []
        self.held: list[str] = []
        self.fails: RestoreError | None = None
        self.steps: list[str] = []
        self.has = False
        """Whether the committed snapshot is there when it is held."""

    def hold_snapshot(self, lease: str, key: str) -> bool:
        return self.has

    def remove_snapshot(self, key: str) -> None:
        self.steps.append("remove")

    def prepare(self, key: str, parent: str, *, lease: str) -> Sequence[api.Mount]:
        self.steps.append("prepare")
        return self.mounts(KEY)

    def commit(self, key: str, name: str, *, lease: str) -> None:
        self.steps.append("commit")

    def mounts(self, key: str) -> Sequence[api.Mount]:
        assert key == KEY
        return [api.Mount(type=self.type, source="overlay", options=self.options)]

    def write_content(self, ref: str, source: BinaryIO, size: int, digest: str, *, lease: str) -> None:
        assert digest in self.held, "or the runtime collects what it says is there already"
        assert len(source.read()) == size

    def hold(self, lease: str, resource: str, kind: str) -> None:
        assert lease == ARCHIVE.lease
        self.held.append(resource)

    def release(self, lease: str, resource: str, kind: str) -> None:
        self.held.remove(resource)

    def apply(self, diff: api.Descriptor, mounts: Sequence[api.Mount]) -> None:
        self.applied.append(diff)
        (self.upper / "half").mkdir(exist_ok=True)
        (self.upper / "half/file").touch()
        (self.upper / "link").unlink(missing_ok=True)
        (self.upper / "link").symlink_to(self.upper.parent)
        if self.fails:
            raise self.fails

    def read_content(self, digest: str) -> bytes:
        assert digest == LAYERED.digest
        layers = [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": each, "size": 10 + number}
            for number, each in enumerate(DIFF_IDS)
        ]
        config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIFF_IDS[0], "size": 1}
        return json.dumps({"schemaVersion": 2, "config": config, "layers": layers}).encode()


@pytest.fixture
def containerd(tmp_path: Path) -> FakeContainerd:
    return FakeContainerd(tmp_path)


def lock(digest: str) -> AbstractContextManager[None]:
    return nullcontext()


def fill(containerd: FakeContainerd, image: StoredImage, files: dict[str, bytes] | None = None) -> rootfs.Overlay:
    folder = checkpoints.write_directory(containerd.upper.parent / "checkpoint", files or checkpoints.containerd())
    with open_checkpoint(folder) as opened:
        checkpoint = read_checkpoint(opened)
        runtime = cast(Containerd, containerd)
        return rootfs.fill_own(runtime, image, BASE, checkpoint, opened, KEY, lock=lock)


def test_diff_goes_into_the_containers_own_layer_which_is_mounted_as_it_was(containerd: FakeContainerd) -> None:
    overlay = fill(containerd, ARCHIVE)
    (diff,) = containerd.applied
    assert diff.media_type.endswith("tar+gzip")
    assert overlay == rootfs.Overlay(
        ("/lower/2", "/lower/1"), str(containerd.upper), f"{containerd.upper.parent}/work", ("index=off",)
    )
    assert containerd.held == []


def test_what_other_engines_list_as_deleted_is_applied_after_the_diff(containerd: FakeContainerd) -> None:
    fill(containerd, ARCHIVE, checkpoints.crio())
    assert [diff.media_type for diff in containerd.applied] == ["application/vnd.oci.image.layer.v1.tar"] * 2


@pytest.mark.parametrize("there", [True, False])
def test_what_is_known_of_a_snapshot_is_forgotten_before_another_is_made(
    containerd: FakeContainerd, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime may have collected the one that was there a moment ago."""
    monkeypatch.setattr(rootfs, "require_base", lambda *arguments: BASE)
    monkeypatch.setattr(rootfs, "check_standing", lambda *arguments: None)
    containerd.has = there
    folder = checkpoints.write_directory(containerd.upper.parent / "checkpoint", checkpoints.containerd())
    with open_checkpoint(folder) as opened:
        rootfs.ensure_snapshot(
            cast(Containerd, containerd),
            ARCHIVE,
            read_checkpoint(opened),
            opened,
            rootfs.Pulling(1, cast(Puller, None), lambda references: None),
            lock=lock,
            making=lambda: containerd.steps.append("forget"),
        )
    assert containerd.steps == ([] if there else ["forget", "remove", "prepare", "commit"])


def test_layered_image_gives_the_layers_between_base_and_checkpoint(containerd: FakeContainerd) -> None:
    fill(containerd, LAYERED)
    assert [layer.digest for layer in containerd.applied] == list(DIFF_IDS[2:4])


def test_layered_image_on_other_layers_is_refused_before_anything_is_applied(containerd: FakeContainerd) -> None:
    with pytest.raises(Refused) as refusal:
        fill(containerd, replace(LAYERED, diff_ids=(DIFF_IDS[1], *DIFF_IDS[1:])))
    assert refusal.value.reason == "BaseImageDiffers"
    assert containerd.applied == []


@pytest.mark.parametrize("image", [ARCHIVE, LAYERED], ids=["archive", "layered"])
def test_layer_is_empty_again_when_the_diff_cannot_be_applied(containerd: FakeContainerd, image: StoredImage) -> None:
    containerd.fails = Unavailable("RuntimeFailed", "no space")
    with pytest.raises(Unavailable, match="no space") as failure:
        fill(containerd, image)
    assert failure.value.reason == "RootfsDiffFailed"
    assert list(containerd.upper.iterdir()) == []
    assert (containerd.upper.parent / "checkpoint").exists(), "no link is followed"
    assert containerd.held == []


def test_other_snapshotters_are_refused_by_name(containerd: FakeContainerd) -> None:
    containerd.type, containerd.options = "bind", ["rbind", "rw"]
    with pytest.raises(Refused, match="uses bind; build the image with --format layered") as refusal:
        fill(containerd, ARCHIVE)
    assert refusal.value.reason == "SnapshotterUnsupported"


def test_overlay_without_an_upper_directory_is_refused(containerd: FakeContainerd) -> None:
    containerd.options = ["lowerdir=/lower/2:/lower/1"]
    with pytest.raises(Refused):
        rootfs.over_lower(cast(Containerd, containerd), KEY, ("/lower",))


def test_plan_names_each_layer_by_one_number(tmp_path: Path) -> None:
    plan = Plan(tmp_path, "f" * 64)
    plan.path.mkdir()
    rootfs.write_overlay(plan, "mount", rootfs.Overlay(("/top", "/bottom"), "/upper", "/work", ("index=off",)))
    assert plan.read("mount") == "index=off,lowerdir=0:1,upperdir=u,workdir=w\n"
    links = {link.name: str(link.readlink()) for link in (plan.path / "l").iterdir()}
    assert links == {"0": "/top", "1": "/bottom", "u": "/upper", "w": "/work"}


def test_more_layers_than_one_page_of_options_can_name_are_refused(tmp_path: Path) -> None:
    plan = Plan(tmp_path, "f" * 64)
    plan.path.mkdir()
    with pytest.raises(Refused) as refusal:
        rootfs.write_overlay(plan, "mount", rootfs.Overlay(("/layer",) * 1200, "/upper", "/work", ()))
    assert refusal.value.reason == "TooManyLayers"
    assert not plan.has("mount")


@pytest.mark.parametrize(
    ("start", "media_type"),
    [
        (b"rootfs/", oci.LAYER),
        (b"\x1f\x8b\x08\0", oci.LAYER_GZIP),
        (b"\x28\xb5\x2f\xfd", oci.LAYER_ZSTD),
        (b"\x50\x2a\x4d\x18", oci.LAYER_ZSTD),
        (b"\x5f\x2a\x4d\x18", oci.LAYER_ZSTD),
    ],
    ids=["plain", "gzip", "zstd", "a frame to skip", "another one"],
)
def test_layer_is_handed_over_as_what_it_was_judged_as(
    containerd: FakeContainerd, start: bytes, media_type: str
) -> None:
    """A tar's first name may begin like a frame of zstd that is skipped: both readers must take it for the same."""
    rootfs.apply_layer(cast(Containerd, containerd), ARCHIVE.lease, io.BytesIO(start + bytes(1020)), [])
    assert [each.media_type for each in containerd.applied] == [media_type]


def test_whiteouts_never_leave_the_root() -> None:
    layer = rootfs.whiteouts(["/etc/motd", "/top", "/a/../../b", "/"])
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert tar.getnames() == ["etc/.wh.motd", ".wh.top"]
