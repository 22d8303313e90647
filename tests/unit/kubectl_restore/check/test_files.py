from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.criu import criu_pb2 as pb
from shared.criu.images import Kind, join
from shared.preflight.files import Expected, Found, compare_files
from tests.support.base_image import BaseImage
from tests.support.checkpoints import SyntheticDump, config_dump, containerd, crio, rootfs_diff, tar_of
from tests.support.elf import NT_BUILD_ID, elf, isa_needed, note
from tests.support.inspected import regular
from tests.unit.kubectl_restore.check.conftest import Examine, codes, one
from tests.unit.shared.conftest import SAMPLES

BUILD_ID = bytes(range(20))
PROGRAM = elf([note(NT_BUILD_ID, BUILD_ID)], size=5000)


def image(tmp_path: Path) -> tuple[str, str]:
    """``--base`` for an image with /bin/app alone, and its digest."""
    made = BaseImage(files=[{"bin/app": PROGRAM}])
    return made.write_layout(tmp_path / "base"), made.digest


def dump_of(*entries: pb.FileEntry) -> SyntheticDump:
    """A process that has these files open, and runs /bin/app as it is in the image."""
    dump = SyntheticDump.of_processes()
    dump.images["files.img"][0] = regular(1, "/bin/app", mode=0o100600, size=5000, build_id=BUILD_ID)
    for number, entry in enumerate(entries, 10):
        dump.add_file(entry, descriptor=number)
    return dump


def checkpoint(dump: SyntheticDump, digest: str, **more: bytes) -> dict[str, bytes]:
    files = containerd(dump, config=config_dump(rootfsImageRef=f"registry.example/app@{digest}"))
    return files | {"rootfs-diff.tar": rootfs_diff({})} | more


def test_program_that_is_the_same(examined: Examine, tmp_path: Path) -> None:
    base, digest = image(tmp_path)
    report = examined(checkpoint(dump_of(), digest), base=base)
    assert one(report, "FilesMatch").sentence.endswith("1 of them compared by build ID")
    assert report.verdict == "would restore"


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (regular(50, "/etc/gone"), "FileMissing"),
        (regular(50, "/srv", mode=0o040755), "FileMissing"),
        (regular(50, "/etc/motd", size=6), "FileSizeDiffers"),
        (regular(50, "/etc/motd", mode=0o100644), "FileModeDiffers"),
        (regular(50, "/etc/motd", mode=0o040755), "FileModeDiffers"),
        (regular(50, "/etc", mode=0o100600), "FileModeDiffers"),
        (regular(50, "/lib/x.so", mode=0o100600, size=5000, build_id=bytes(20)), "BuildIdDiffers"),
        (regular(50, "/lib/x.so", mode=0o100600, size=5000, build_id=BUILD_ID[:8]), "BuildIdDiffers"),
    ],
)
def test_file_that_differs(examined: Examine, tmp_path: Path, entry: pb.FileEntry, code: str) -> None:
    made = BaseImage(files=[{"bin/app": PROGRAM, "etc/motd": b"hello", "lib/x.so": PROGRAM}])
    report = examined(checkpoint(dump_of(entry), made.digest), base=made.write_layout(tmp_path / "base"))
    assert one(report, code).sentence.startswith(entry.reg.name.decode())
    assert "FilesMatch" not in codes(report)
    assert report.verdict == "would fail"


@pytest.mark.parametrize(
    "entry",
    [
        regular(50, "/etc/motd", mode=0o100600, size=5),
        regular(50, "/etc", mode=0o040755),
        regular(50, "/dev/pts/0", mode=0o020620, mount=151),
        regular(50, "/lib/x.so", mode=0o100600, size=5000, build_id=BUILD_ID),
        regular(50, "/etc/motd", mode=0o100600, build_id=BUILD_ID),
    ],
)
def test_file_that_does_not(examined: Examine, tmp_path: Path, entry: pb.FileEntry) -> None:
    made = BaseImage(files=[{"bin/app": PROGRAM, "etc/motd": b"hello", "lib/x.so": PROGRAM}])
    report = examined(checkpoint(dump_of(entry), made.digest), base=made.write_layout(tmp_path / "base"))
    assert "FilesMatch" in codes(report)


@pytest.mark.parametrize(("there", "code"), [(0o700, "FilesMatch"), (0o755, "FileModeDiffers"), (None, "FilesMatch")])
def test_folder_has_its_mode_where_the_image_says_one(there: int | None, code: str) -> None:
    expected = [Expected("/srv", None, 0o040700, None)]
    (found,) = compare_files(expected, {"/srv": Found("directory", 0, there, None)})
    assert found.code == code


def test_what_the_container_had_changed_lies_on_top(examined: Examine, tmp_path: Path) -> None:
    made = BaseImage(files=[{"bin/app": PROGRAM, "log": b"old"}])
    base = made.write_layout(tmp_path / "base")
    dump = dump_of(regular(50, "/log", mode=0o100600, size=11))
    diff = {"rootfs-diff.tar": tar_of({"log": b"longer text"})}
    assert "FilesMatch" in codes(examined(checkpoint(dump, made.digest) | diff, base=base))
    whiteout = {"rootfs-diff.tar": tar_of({".wh.log": b""})}
    assert "FileMissing" in codes(examined(checkpoint(dump, made.digest) | whiteout, base=base))


@pytest.mark.parametrize("with_diff", [True, False])
def test_deletions_of_cri_o(examined: Examine, tmp_path: Path, with_diff: bool) -> None:
    made = BaseImage(files=[{"bin/app": PROGRAM, "etc/motd": b"hello"}])
    files = crio(dump_of(regular(50, "/etc/motd", mode=0o100600)))
    files["config.dump"] = files["config.dump"].replace(b"d" * 64, made.config_digest.removeprefix("sha256:").encode())
    if not with_diff:
        del files["rootfs-diff.tar"]
    report = examined(files, base=made.write_layout(tmp_path / "base"))
    assert one(report, "FileMissing").sentence.startswith("/etc/motd ")


def test_deleted_file_comes_out_of_the_dump(examined: Examine, tmp_path: Path) -> None:
    base, digest = image(tmp_path)
    dump = dump_of(regular(50, "/tmp/gone"))
    dump.images["remap-fpath.img"] = [pb.RemapFilePathEntry(orig_id=50, remap_id=1, remap_type=1)]
    ghost = pb.GhostFileEntry(uid=0, gid=0, mode=0o100644)
    dump.raw["ghost-file-1.img"] = join(Kind.GHOST_FILE, [ghost]) + b"gone"
    assert "FilesMatch" in codes(examined(checkpoint(dump, digest), base=base))


def test_files_of_volumes_are_named(examined: Examine, tmp_path: Path) -> None:
    base, digest = image(tmp_path)
    dump = dump_of(regular(50, "/data/journal", mount=300))
    dump.add_mount("/data", mnt_id=300)
    report = examined(checkpoint(dump, digest), base=base)
    assert "/data/journal" in one(report, "FilesOnVolumes").sentence
    assert "FilesMatch" in codes(report)


def test_many_differing_files_are_counted(examined: Examine, tmp_path: Path) -> None:
    base, digest = image(tmp_path)
    dump = dump_of(*(regular(50 + number, f"/gone/{number}") for number in range(40)))
    missing = [each for each in examined(checkpoint(dump, digest), base=base).findings if each.code == "FileMissing"]
    assert len(missing) == 11
    assert missing[-1].sentence.startswith("30 more")


def test_level_of_a_program_needs_its_processor(examined: Examine, tmp_path: Path) -> None:
    program = elf([isa_needed(4)], size=5000)
    made = BaseImage(files=[{"bin/app": program}])
    dump = SyntheticDump.of_processes()
    dump.images["files.img"][0] = regular(1, "/bin/app", mode=0o100600, size=5000)
    report = examined(
        checkpoint(dump, made.digest),
        base=made.write_layout(tmp_path / "base"),
        cpu_flags=frozenset({"avx", "avx2", "bmi1"}),
    )
    assert "bmi2" in one(report, "CpuFeaturesMissing").sentence


@pytest.mark.parametrize("base", ["oci:/nowhere", "localhost:1/app:1"])
def test_base_that_cannot_be_read(examined: Examine, base: str) -> None:
    report = examined(checkpoint(dump_of(), "sha256:" + "b" * 64), base=base)
    assert "--base none" in one(report, "BaseUnreadable").sentence
    assert report.verdict == "could not tell"


def test_base_that_breaks_off(examined: Examine, tmp_path: Path) -> None:
    made = BaseImage(files=[{"bin/app": PROGRAM}])
    base = made.write_layout(tmp_path / "base")
    blob = max(
        (tmp_path / "base" / "blobs" / "sha256").iterdir(), key=lambda path: b"\x1f\x8b" in path.read_bytes()[:2]
    )
    blob.write_bytes(blob.read_bytes()[:40])
    report = examined(checkpoint(dump_of(), made.digest), base=base)
    assert "to the end" in one(report, "BaseUnreadable").sentence


def test_image_that_nothing_proves_to_be_the_base(examined: Examine, tmp_path: Path) -> None:
    base, _ = image(tmp_path)
    report = examined(checkpoint(dump_of(), "sha256:" + "b" * 64), base=base)
    assert "nothing proves" in one(report, "BaseDoubtful").sentence
    assert "FilesMatch" in codes(report)


def test_checkpoint_in_archive_format_is_no_base(examined: Examine, tmp_path: Path) -> None:
    made = BaseImage(files=[{"bin/app": PROGRAM}], annotations={"org.criu.checkpoint.container.name": "app"})
    report = examined(checkpoint(dump_of(), made.digest), base=made.write_layout(tmp_path / "base"))
    assert "archive format" in one(report, "BaseUnreadable").sentence


def test_real_checkpoint_against_its_own_image(examined: Examine) -> None:
    if not SAMPLES.is_dir():
        pytest.skip("the real checkpoints lie beside the checkout, in ../shared/data, and are not there")
    from shared.archive import open_checkpoint

    with open_checkpoint(SAMPLES / "counter-containerd21.tar") as opened:
        files: dict[str, Any] = {name: opened.read(name, 1 << 20) for name in opened.names()}
    report = examined(files, base=f"oci-archive:{SAMPLES / 'busybox.tar'}", cgroup_version=1)
    assert "FilesMatch" in codes(report)
    assert one(report, "KernelOlder").sentence
