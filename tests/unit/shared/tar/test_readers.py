"""What is accepted, Python's tarfile and GNU tar see alike; and what real programs write is accepted."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from shared.archive import open_checkpoint
from shared.compression import Compression, Decompressed
from shared.errors import CheckpointInvalid
from shared.run import run
from shared.tar import CHECKPOINT, DIFF, IMAGE, TMPFS, MemberWalk, Rules, TarMember
from tests.support.checkpoints import member
from tests.support.tar_mutations import ARCHIVES
from tests.support.tars import archive, walked

FLAGS = {
    "file": "0",
    "hard link": "1",
    "symbolic link": "2",
    "character device": "3",
    "block device": "4",
    "directory": "5",
    "FIFO": "6",
}
LETTERS = {"0": "-", "1": "h", "2": "l", "3": "c", "4": "b", "5": "d", "6": "p"}
FORMATS = {"2": stat.S_IFLNK, "3": stat.S_IFCHR, "4": stat.S_IFBLK, "5": stat.S_IFDIR, "6": stat.S_IFIFO}
Row = tuple[str, ...]

needs_gnu_tar = pytest.mark.skipif(
    shutil.which("tar") is None or "GNU tar" not in run(["tar", "--version"], timeout_s=10, check=False).stdout,
    reason="tar is not GNU tar",
)


def by_us(members: Sequence[TarMember]) -> list[Row]:
    """Name, kind, permission bits, owner, group, size or device, link target."""
    return [
        _row(
            each.name,
            FLAGS[each.kind],
            each.mode,
            each.uid,
            each.gid,
            each.device if "device" in each.kind else each.size,
            each.target,
        )
        for each in members
    ]


def by_python(content: bytes) -> list[Row]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:", errors="backslashreplace") as tar:
        return [
            _row(
                each.name,
                each.type.decode().replace("\0", "0"),
                each.mode & 0o7777,
                each.uid,
                each.gid,
                (each.devmajor, each.devminor) if each.isdev() and not each.isfifo() else each.size,
                each.linkname,
            )
            for each in tar
        ]


def _row(name: str, flag: str, mode: int, uid: int, gid: int, size: int | tuple[int, int], target: str) -> Row:
    clean = "/".join(part for part in name.split("/") if part not in ("", "."))
    shown = f"{size[0]},{size[1]}" if isinstance(size, tuple) else str(size)
    permissions = stat.filemode(FORMATS.get(flag, stat.S_IFREG) | mode)[1:]
    return (clean, LETTERS[flag] + permissions, f"{uid}/{gid}", shown, target)


def by_gnu_tar(content: bytes, folder: Path) -> list[str]:
    """Its list, a line a member, names escaped."""
    path = folder / "listed.tar"
    path.write_bytes(content)
    argv = ["tar", "--list", "-v", "--numeric-owner", "--quoting-style=escape", "--file", path]
    return run(argv, timeout_s=20, env={"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ["PATH"]}).stdout.splitlines()


def assert_lines_say(lines: Sequence[str], rows: Sequence[Row]) -> None:
    assert len(lines) == len(rows)
    for line, (name, permissions, owner, size, target) in zip(lines, rows, strict=True):
        words = line.split()
        assert (words[0].rstrip("*+."), words[1], words[2]) == (permissions, owner, size), line
        if all(each.isascii() and each.isprintable() and not set(each) & set(' \\"') for each in (name, target)):
            link = {"l": f" -> {target}", "h": f" link to {target}"}.get(permissions[0], "")
            rest = line.removesuffix(link)
            assert line.endswith(link)
            shown = rest.split(" ")[-1]
            assert "/".join(part for part in shown.split("/") if part not in ("", ".")) == name


@needs_gnu_tar
@settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(ARCHIVES)
def test_changed_headers_are_refused_or_read_as_other_programs_do(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    for rules in (TMPFS, DIFF):
        try:
            rows = by_us(walked(content, rules))
        except CheckpointInvalid as error:
            assert str(error).isprintable()
            continue
        assert by_python(content) == rows
        assert_lines_say(by_gnu_tar(content, tmp_path_factory.getbasetemp()), rows)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Every kind of file that a tmpfs holds, with names and numbers that need extended headers."""
    top = tmp_path / "tree"
    (top / "d" / ("n" * 120)).mkdir(parents=True)
    (top / "plain").write_bytes(b"x" * 700)
    (top / "plain").chmod(0o4755)
    (top / "old").write_bytes(b"")
    os.utime(top / "old", (-5, -5))
    (top / "d" / ("n" * 120) / "é").write_bytes(b"y")
    (top / "soft").symlink_to("/t" * 70)
    os.link(top / "plain", top / "hard")
    os.mkfifo(top / "pipe")
    for name, pieces, size in (
        ("holes", [0, 1 << 20], 2 << 20),
        ("s" * 120, [n << 16 for n in range(60)], 8 << 20),
        ("é-holes", [1 << 16], 1 << 20),
        ("hole", [], 1 << 20),
    ):
        with (top / name).open("wb") as file:
            for at in pieces:
                file.seek(at)
                file.write(b"x" * 4096)
            file.truncate(size)
    return top


@needs_gnu_tar
@pytest.mark.parametrize("form", ["gnu", "oldgnu", "posix"])
def test_what_gnu_tar_writes_for_criu(form: str, tree: Path, tmp_path: Path) -> None:
    """The options are those of tmpfs_dump in criu/filesystems.c; some distributions' tar writes posix by default."""
    image = tmp_path / "tmpfs.tar.gz"
    options = ["--gzip", "--no-unquote", "--no-wildcards", "--one-file-system", "--check-links", "--sparse"]
    options += ["--preserve-permissions", "--numeric-owner"]
    run(["tar", "--create", f"--format={form}", *options, "--file", image, "--directory", tree, "."], timeout_s=60)
    with Decompressed(image.open("rb"), Compression.GZIP, "tmpfs", limit_bytes=1 << 30) as stream:
        found = {each.name: each for each in MemberWalk(stream, "tmpfs", TMPFS).members()}
    long = "n" * 120
    assert found.keys() == {
        "", "plain", "old", "d", f"d/{long}", f"d/{long}/é", "soft", "hard", "pipe",
        "holes", "s" * 120, "é-holes", "hole",
    }  # fmt: skip
    assert found["soft"].target == "/t" * 70
    assert {found["plain"].kind, found["hard"].kind} == {"file", "hard link"}
    assert (found["plain"].mode, found["old"].modified) == (0o4755, -5)
    assert (found["holes"].size, found["s" * 120].size, found["hole"].size) == (8192, 60 * 4096, 0)


@needs_gnu_tar
@pytest.mark.parametrize("form", ["gnu", "posix", "pax", "ustar"])
@pytest.mark.parametrize("options", [[], ["--xattrs"], ["--sort=name", "--owner=me:7", "--mtime=@5"]])
def test_what_gnu_tar_packs_of_a_checkpoint(form: str, options: list[str], tmp_path: Path) -> None:
    (tmp_path / "c" / "checkpoint").mkdir(parents=True)
    (tmp_path / "c" / "checkpoint" / "pages-1.img").write_bytes(b"x" * 9000)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "c")
        if options == ["--xattrs"] and form != "ustar":
            try:
                os.setxattr("checkpoint/pages-1.img", "user.mine", b"y")
            except OSError:
                pytest.skip("the file system of the test has no attributes")
        if options == ["--xattrs"] and form in ("gnu", "ustar"):
            options = []  # GNU tar has no place for them there
        run(["tar", "--create", f"--format={form}", *options, "--file", "../c.tar", "."], timeout_s=20)
    with open_checkpoint(tmp_path / "c.tar") as files:
        assert files.names() == ("checkpoint/pages-1.img",)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("rules", [CHECKPOINT, TMPFS, DIFF, IMAGE])
def test_what_python_writes(form: int, rules: Rules) -> None:
    members = [member("d/", kind=tarfile.DIRTYPE), member("d/" + "n" * 90, b"x" * 600, mtime=1, uid=7, gid=8)]
    if form != tarfile.USTAR_FORMAT:
        members += [member("d/" + "l" * 200, b"y", mtime=5, uid=1 << 22, gid=1 << 23)]
    content = archive(*members, form=form)
    assert by_us(walked(content, rules)) == by_python(content)


def test_what_containerd_writes(sample: Path) -> None:
    """Its archive, and the rootfs diff and tmpfs images in it."""
    with open_checkpoint(sample) as files:
        names = [each for each in files.names() if each.startswith("checkpoint/tmpfs-dev-")]
        found = set()
        for name in names:
            with Decompressed(files.open(name), Compression.GZIP, name, limit_bytes=1 << 30) as stream:
                found |= {each.kind for each in MemberWalk(stream, name, TMPFS).members()}
        assert found >= {"directory", "symbolic link", "character device"}
        with Decompressed(files.open("rootfs-diff.tar"), Compression.GZIP, "diff", limit_bytes=1 << 30) as stream:
            assert "root/count" in {each.name for each in MemberWalk(stream, "diff", DIFF).members()}
    content = sample.read_bytes()
    assert by_us(walked(content)) == by_python(content)
