from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nri_plugin.restore.root_files import look_up
from shared.preflight.files import Found
from tests.support.elf import NT_BUILD_ID, elf, note


def layer(folder: Path, name: str, **files: bytes) -> Path:
    """Files by name, ``__`` for a slash."""
    for path, content in files.items():
        file = folder / name / path.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (folder / name).mkdir(exist_ok=True)
    return folder / name


def whiteout(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def found(directories: list[Path], path: str) -> Found | None:
    return look_up(directories, [path])[path]


def test_topmost_directory_that_has_it_decides(tmp_path: Path) -> None:
    lower = layer(tmp_path, "lower", etc__motd=b"old", bin__app=elf([note(NT_BUILD_ID, bytes(20))]))
    upper = layer(tmp_path, "upper", etc__motd=b"longer")
    (upper / "etc/motd").chmod(0o640)
    assert found([upper, lower], "/etc/motd") == Found("file", 6, 0o640, None)
    app = found([upper, lower], "/bin/app")
    assert app is not None and app.elf is not None
    assert app.elf.build_id == "00" * 20
    folder = found([upper, lower], "/etc")
    assert folder is not None and folder.kind == "directory"


def test_root_has_whatever_mode_it_had(tmp_path: Path) -> None:
    assert found([layer(tmp_path, "lower")], "/") == Found("directory", 0, None, None)


@pytest.mark.parametrize("path", ["/etc/gone", "/gone/motd", "/etc/motd/below", f"/etc/{'x' * 300}"])
def test_what_is_nowhere_is_nothing(tmp_path: Path, path: str) -> None:
    assert found([layer(tmp_path, "lower", etc__motd=b"old")], path) is None


@pytest.mark.parametrize("hidden", ["etc/motd", "etc"])
def test_whiteout_hides_what_lies_below(tmp_path: Path, hidden: str) -> None:
    lower = layer(tmp_path, "lower", etc__motd=b"old", etc__other=b"")
    upper = layer(tmp_path, "upper")
    whiteout(upper / hidden)
    assert found([upper, lower], "/etc/motd") is None
    assert (found([upper, lower], "/etc/other") is None) is (hidden == "etc")


def test_opaque_directory_hides_what_lies_below(tmp_path: Path) -> None:
    lower = layer(tmp_path, "lower", etc__motd=b"old")
    upper = layer(tmp_path, "upper", etc__new=b"new")
    assert found([upper, lower], "/etc/motd") is not None
    os.setxattr(upper / "etc", "trusted.overlay.opaque", b"y")
    assert found([upper, lower], "/etc/motd") is None
    assert found([upper, lower], "/etc/new") is not None


def test_file_in_place_of_a_directory_hides_what_lies_below(tmp_path: Path) -> None:
    lower = layer(tmp_path, "lower", etc__motd=b"old")
    assert found([layer(tmp_path, "upper", etc=b""), lower], "/etc/motd") is None


def test_no_link_is_followed(tmp_path: Path) -> None:
    outside = layer(tmp_path, "outside", secret=b"the node's")
    root = layer(tmp_path, "root")
    (root / "etc").symlink_to(outside)
    (root / "link").symlink_to(outside / "secret")
    assert found([root], "/etc/secret") is None
    link = found([root], "/link")
    assert link is not None and (link.kind, link.elf) == ("symbolic link", None)
