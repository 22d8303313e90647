"""The directories that CRIU restores from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nri_plugin.restore import written
from nri_plugin.restore.written import RUN, write_judged, write_shared
from shared.archive import CheckpointFiles, open_checkpoint
from shared.errors import CheckpointInvalid, Unavailable
from shared.judge.writing import ImageFile, Raw
from tests.support.checkpoints import containerd, write_directory

CORE = ImageFile("core-1.img", (b"written",))
PAGES = ImageFile("pages-1.img", (Raw("pages-1.img"),))
GHOST = ImageFile("ghost-file-1.img", (b"head", Raw("pages-1.img", 4096, 3)))
TMPFS = ImageFile("tmpfs-dev-65.tar.gz.img", (Raw("tmpfs-dev-65.tar.gz.img"),))
MOUNTS = ImageFile("mountpoints-13.img", (b"of the pod",))


@pytest.fixture
def view(tmp_path: Path) -> Path:
    write_directory(tmp_path / "view/image", containerd())
    return tmp_path / "view"


@pytest.fixture
def dump(view: Path) -> Path:
    return view / "image/checkpoint"


@pytest.fixture
def files(view: Path) -> Iterator[CheckpointFiles]:
    with open_checkpoint(view / "image") as opened:
        yield opened


def hidden(view: Path) -> list[str]:
    """What was begun and did not become whole."""
    return [path.name for path in view.iterdir() if path.name.startswith(".")]


def test_messages_are_written_and_whole_files_are_links_into_the_view(
    view: Path, dump: Path, files: CheckpointFiles
) -> None:
    directory = write_shared(view, [CORE, PAGES, GHOST], files, dump)
    assert directory == view / f"written-{RUN}"
    assert (directory / "core-1.img").read_bytes() == b"written"
    assert (directory / "pages-1.img").read_bytes() == (dump / "pages-1.img").read_bytes()
    assert (directory / "ghost-file-1.img").read_bytes() == b"head" + (dump / "pages-1.img").read_bytes()[4096:4099]
    assert {path.name: path.is_symlink() for path in directory.iterdir()} == {
        "core-1.img": False,
        "pages-1.img": True,
        "ghost-file-1.img": False,
    }


def test_link_leads_to_the_view_wherever_that_is(view: Path, dump: Path, files: CheckpointFiles) -> None:
    """CRIU may be in the container's root when it opens one."""
    directory = write_shared(view, [PAGES], files, dump)
    assert (directory / "pages-1.img").readlink() == Path("../image/checkpoint/pages-1.img")
    moved = view.rename(view.with_name("elsewhere"))
    assert (moved / directory.name / "pages-1.img").read_bytes()


def test_only_the_owner_reads_what_was_written(view: Path, dump: Path, files: CheckpointFiles) -> None:
    directory = write_shared(view, [CORE], files, dump)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "core-1.img").stat().st_mode & 0o777 == 0o600


def test_pods_that_are_judged_alike_share_a_directory(view: Path, dump: Path, files: CheckpointFiles) -> None:
    shared = write_shared(view, [CORE, PAGES], files, dump)
    first = write_judged(view, "key", shared, [MOUNTS], files, dump)
    inode = first.stat().st_ino
    assert write_judged(view, "key", shared, [MOUNTS], files, dump) == first
    assert first.stat().st_ino == inode
    other = write_judged(view, "other", shared, [ImageFile("mountpoints-13.img", (b"of another",))], files, dump)
    assert other != first
    assert (first / "mountpoints-13.img").read_bytes() == b"of the pod"
    assert (other / "mountpoints-13.img").read_bytes() == b"of another"


def test_what_no_pod_changes_is_one_file_of_all_directories(view: Path, dump: Path, files: CheckpointFiles) -> None:
    shared = write_shared(view, [CORE, PAGES], files, dump)
    judged = write_judged(view, "key", shared, [MOUNTS], files, dump)
    for name in ("core-1.img", "pages-1.img"):
        assert (judged / name).lstat().st_ino == (shared / name).lstat().st_ino
    assert not (shared / "mountpoints-13.img").exists()


def test_tmpfs_of_the_pod_is_the_dumps_or_an_empty_one(view: Path, dump: Path, files: CheckpointFiles) -> None:
    shared = write_shared(view, [CORE], files, dump)
    kept = write_judged(view, "kept", shared, [TMPFS], files, dump)
    covered = write_judged(view, "covered", shared, [ImageFile(TMPFS.name, (b"nothing",))], files, dump)
    assert (kept / TMPFS.name).read_bytes() == (dump / TMPFS.name).read_bytes()
    assert (covered / TMPFS.name).read_bytes() == b"nothing"


def test_image_is_not_written_through_a_link_or_over_another(view: Path, dump: Path, files: CheckpointFiles) -> None:
    shared = write_shared(view, [PAGES], files, dump)
    before = (dump / "pages-1.img").read_bytes()
    with pytest.raises(Unavailable) as failure:
        write_judged(view, "key", shared, [ImageFile("pages-1.img", (b"other",))], files, dump)
    assert failure.value.reason == "NodeStorageFailed"
    assert (dump / "pages-1.img").read_bytes() == before
    assert hidden(view) == []


def test_directory_of_an_earlier_preparation_is_replaced_whole(view: Path, dump: Path, files: CheckpointFiles) -> None:
    directory = write_shared(view, [CORE, PAGES], files, dump)
    write_shared(view, [CORE], files, dump)
    assert [path.name for path in directory.iterdir()] == ["core-1.img"]


def test_raw_content_that_is_missing_leaves_nothing(view: Path, dump: Path, files: CheckpointFiles) -> None:
    short = ImageFile("ghost-file-1.img", (b"head", Raw("pages-1.img", 4096, 1 << 20)))
    with pytest.raises(CheckpointInvalid, match=r"pages-1\.img ends before the content") as failure:
        write_shared(view, [CORE, short], files, dump)
    assert failure.value.reason == "ImageDamaged"
    assert not (view / f"written-{RUN}").exists()
    assert hidden(view) == []


def test_large_content_is_copied_in_pieces(
    view: Path, dump: Path, files: CheckpointFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written, "COPY_BYTES", 1000)
    directory = write_shared(view, [ImageFile("a.img", (b"", Raw("pages-1.img")))], files, dump)
    assert (directory / "a.img").read_bytes() == (dump / "pages-1.img").read_bytes()
    assert not (directory / "a.img").is_symlink()


def test_node_that_cannot_write_says_where(tmp_path: Path, view: Path, dump: Path, files: CheckpointFiles) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot be written: Not a directory") as failure:
        write_shared(tmp_path / "file", [CORE], files, tmp_path / "file/image")
    assert failure.value.reason == "NodeStorageFailed"


def test_directories_of_another_run_are_not_used(view: Path) -> None:
    assert len(RUN) == 8
    assert RUN != "00000000"
