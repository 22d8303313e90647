"""Checkpoints with one thing wrong each, in groups, as images to restore from; and the reason each is refused for."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

from shared.contract import LAYERED_DIR
from tests.e2e.node.image import OciImage, busybox_image, tar_of
from tests.e2e.node.roots import base_root
from tests.e2e.spoilt_images import Archive, archive_image, layered_image, magic_pattern, wrong_magic

PAGES: Final = "checkpoint/pages-1.img"

OPTIONAL: Final = {
    "checkpoint/seccomp.img",  # lists filters, and there are none
    "checkpoint/timens-0.img",  # CRIU takes a missing one for the node's clocks (criu/timens.c)
    "container.log",
    "dump.log",
    "stats-dump",
    "status",
}
"""Files that a restore does without."""


@dataclass(frozen=True)
class Spoilt:
    case: str
    image: OciImage
    reason: str
    says: str = ""
    """Must be in the sentence."""


def _spoilt(case: str, archive: Archive, reason: str, says: str = "") -> Spoilt:
    return Spoilt(case, archive_image(archive), reason, says)


def cut_after_any_member(archive: Archive) -> Iterator[Spoilt]:
    """Every other one without the terminator of a tar: readers take both for whole."""
    for count in range(len(archive.members)):
        layer = archive.first(count).tar(terminated=count % 2 == 0)
        image = archive_image(archive, layer or bytes(1024))
        missing = "status.dump" if "spec.dump" in archive.first(count).files else ""
        yield Spoilt(f"cut-{count}", image, "MetadataMissing", missing)


def lacking_one_file(archive: Archive) -> Iterator[Spoilt]:
    for name in sorted({*archive.files} - OPTIONAL):
        if name.startswith("checkpoint/fdinfo-"):
            continue  # CRIU writes none for a process without open files
        metadata = name in {"config.dump", "spec.dump", "status.dump", "rootfs-diff.tar", "checkpoint/inventory.img"}
        yield _spoilt(
            f"without-{_label(name)}", archive.without(name), "MetadataMissing" if metadata else "FileMissing", name
        )


def with_a_wrong_magic_number(archive: Archive) -> Iterator[Spoilt]:
    for name in archive.files:
        if pattern := magic_pattern(name):
            spoilt = archive.with_content(name, lambda content, pattern=pattern: wrong_magic(content, pattern))  # type: ignore[misc]
            yield _spoilt(f"magic-{_label(name)}", spoilt, "WrongMagic", name)


def damaged(archive: Archive) -> Iterator[Spoilt]:
    for case, change in {
        "pages-short": lambda pages: pages[:-1],
        "pages-a-page-short": lambda pages: pages[:-4096],
        "pages-long": lambda pages: pages + bytes(4096),
        "pages-empty": lambda pages: b"",
    }.items():
        yield _spoilt(case, archive.with_content(PAGES, change), "PagesSizeMismatch", PAGES)
    (mounts,) = (name.partition("/")[2] for name in archive.files if name.startswith("checkpoint/mountpoints-"))
    for name in ("core-1.img", mounts, "files.img", "pstree.img", "mm-1.img", "pagemap-1.img"):
        half = archive.with_content(f"checkpoint/{name}", lambda content: content[: len(content) // 2 + 1])
        yield _spoilt(f"half-{_label(name)}", half, "ImageDamaged", name)
    for name in ("config.dump", "spec.dump", "status.dump", "checkpoint/descriptors.json"):
        for case, text in {"half": b'{"', "array": b"[1]", "binary": bytes(range(256)), "empty": b""}.items():
            spoilt = archive.with_content(name, lambda _, text=text: text)  # type: ignore[misc]
            yield _spoilt(f"json-{case}-{_label(name)}", spoilt, "MetadataMalformed", name.rpartition("/")[2])
    twice = archive.with_content("config.dump", lambda content: b'{"id":"x",' + content.lstrip()[1:])
    yield _spoilt("key-twice", twice, "MetadataMalformed", "a key is given twice")
    two = archive.with_content("checkpoint/descriptors.json", lambda _: b'["/dev/null","pipe:[1]"]')
    yield _spoilt("two-descriptors", two, "DescriptorsInvalid")


def not_regular_files(archive: Archive) -> Iterator[Spoilt]:
    for name in ("config.dump", "spec.dump", PAGES, "checkpoint/inventory.img", "container.log"):
        link = archive.with_entry(name, tarfile.SYMTYPE, linkname="/etc/hostname")
        yield _spoilt(f"link-{_label(name)}", link, "MemberKind", name)
    device = archive.with_entry(PAGES, tarfile.CHRTYPE, devmajor=1, devminor=8)
    yield _spoilt("device", device, "MemberKind", PAGES)
    yield _spoilt("pipe", archive.with_entry("spec.dump", tarfile.FIFOTYPE), "MemberKind", "spec.dump")
    images = [member for member in archive.members if member[0].name.startswith("checkpoint")]
    others = tuple(member for member in archive.members if member not in images)
    folder = tarfile.TarInfo("checkpoint")
    folder.type, folder.linkname = tarfile.SYMTYPE, "/etc"
    yield _spoilt("linked-folder", replace(archive, members=((folder, b""), *others)), "MemberKind", "checkpoint")


def layered(archive: Archive) -> Iterator[Spoilt]:
    base = busybox_image(base_root("containerd-1.7"))
    away = tar_of({}, links={LAYERED_DIR: "/etc"})
    yield Spoilt("layered-link", layered_image(base, archive, away), "MemberKind", "link")
    file = tar_of({LAYERED_DIR: b"no folder"})
    yield Spoilt("layered-file", layered_image(base, archive, file), "MemberKind")
    nothing = tar_of({"etc/other": b""})
    yield Spoilt("layered-nothing", layered_image(base, archive, nothing), "FileMissing", LAYERED_DIR)
    yield Spoilt("layered-cut", layered_image(base, archive.without("spec.dump")), "MetadataMissing", "spec.dump")


def _label(name: str) -> str:
    return name.removeprefix("checkpoint/").replace(".", "-")


GROUPS: Final = (cut_after_any_member, lacking_one_file, with_a_wrong_magic_number, damaged, not_regular_files, layered)


@cache
def groups_of(archive: Path) -> dict[str, list[Spoilt]]:
    """Every spoilt form of one archive by the name of its group; made once for all nodes."""
    return {make.__name__: list(make(Archive.read(archive.read_bytes()))) for make in GROUPS}
