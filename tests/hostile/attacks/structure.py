"""Images that are damaged, contradict each other, or cost more than they should: CRIU would crash, spin or run away."""

from __future__ import annotations

import struct
from typing import Any

from shared.criu import criu_pb2 as pb
from tests.hostile.attack import Change, add, attack
from tests.hostile.forgery import Forgery, messages_of

ALLOW = struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000)


def _appended(name: str, content: bytes) -> Change:
    return lambda forgery: forgery.raw(name, forgery.contents()[f"checkpoint/{name}"] + content)


def _cut(name: str, left: int) -> Change:
    return lambda forgery: forgery.raw(name, forgery.contents()[f"checkpoint/{name}"][:left])


def _without(name: str) -> Change:
    return lambda forgery: forgery.files.pop(f"checkpoint/{name}") and None


for _name in (
    "pstree.img",
    "core-1.img",
    "files.img",
    "mm-1.img",
    "fs-1.img",
    "ids-1.img",
    "pagemap-1.img",
    "cgroup.img",
):
    add(f"no {_name}", "FileMissing", _without(_name))
for _name in ("inventory.img", "pstree.img", "core-1.img", "files.img", "mm-1.img", "fs-1.img", "ids-1.img"):
    add(
        f"{_name} with another magic number",
        "WrongMagic",
        lambda forgery, name=_name: forgery.raw(name, b"\0" * 8 + forgery.files[f"checkpoint/{name}"][8:]),
    )  # type: ignore[misc]
    add(f"{_name} cut in the middle", "ImageDamaged", _cut(_name, 15))
    add(f"{_name} with a message of 4 GiB", "ImageDamaged", _appended(_name, b"\xff\xff\xff\xff"))
for _name in ("inventory.img", "core-1.img", "mm-1.img", "ids-1.img", "fs-1.img"):
    add(f"{_name} with a second message", "ImageDamaged", lambda forgery, name=_name: _again(forgery, name))  # type: ignore[misc]


def _again(forgery: Forgery, name: str) -> None:
    whole = forgery.files[f"checkpoint/{name}"]
    forgery.raw(name, whole + whole[4 if name == "inventory.img" else 8 :])


add("pages fewer than listed", "PagesSizeMismatch", _cut("pages-1.img", 4096))
add("pages more than listed", "PagesSizeMismatch", _appended("pages-1.img", bytes(4096)))
add("pages that are no whole page", "PagesSizeMismatch", _appended("pages-1.img", b"x"))


def _pagemap(*entries: Any) -> bytes:
    return messages_of("pagemap-%.img", pb.PagemapHead(pages_id=1), *entries)


add(
    "pages of an earlier dump",
    "ParentMissing",
    lambda forgery: forgery.raw("pagemap-1.img", _pagemap(pb.PagemapEntry(vaddr=0x400000, nr_pages=1, flags=1))),
)
add(
    "pages that stayed on another node",
    "PagesMissing",
    lambda forgery: forgery.raw("pagemap-1.img", _pagemap(pb.PagemapEntry(vaddr=0x400000, nr_pages=1, flags=2))),
)
add(
    "pages out of order",
    "ImageDamaged",
    lambda forgery: forgery.raw(
        "pagemap-1.img",
        _pagemap(
            pb.PagemapEntry(vaddr=0x500000, nr_pages=1, flags=4), pb.PagemapEntry(vaddr=0x400000, nr_pages=1, flags=4)
        ),
    ),
)
add(
    "pages beyond all memory",
    "ImageDamaged",
    lambda forgery: forgery.raw("pagemap-1.img", _pagemap(pb.PagemapEntry(vaddr=1 << 63, nr_pages=1 << 60, flags=4))),
)
add(
    "two processes with the same pages",
    "ImageDamaged",
    lambda forgery: forgery.raw(f"pagemap-{forgery.pids[-1]}.img", forgery.files["checkpoint/pagemap-1.img"]),
)


def _filters(*filters: pb.SeccompFilter) -> Change:
    def change(forgery: Forgery) -> None:
        forgery.image("seccomp.img")[:] = [pb.SeccompEntry(seccomp_filters=filters)]
        for core in forgery.cores():
            core.thread_core.seccomp_mode, core.thread_core.seccomp_filter = 2, 0

    return change


add("a filter that follows itself", "ImageDamaged", _filters(pb.SeccompFilter(filter=ALLOW, prev=0)))
add(
    "filters that follow each other",
    "ImageDamaged",
    _filters(pb.SeccompFilter(filter=ALLOW, prev=1), pb.SeccompFilter(filter=ALLOW, prev=0)),
)
add("a filter that follows none", "ImageDamaged", _filters(pb.SeccompFilter(filter=ALLOW, prev=7)))
add("a filter without instructions", "ImageDamaged", _filters(pb.SeccompFilter(filter=b"")))
add("half an instruction", "ImageDamaged", _filters(pb.SeccompFilter(filter=b"1234")))
add("a hundred thousand filters", "ImageDamaged", _filters(*[pb.SeccompFilter(filter=ALLOW)] * 100_000))


@attack("a filter that is not there", "ImageDamaged")
def _no_filter(forgery: Forgery) -> None:
    for core in forgery.cores():
        core.thread_core.seccomp_mode, core.thread_core.seccomp_filter = 2, 3


@attack("the seccomp mode of an old CRIU, which wins", "ImageDamaged", "restricted")
def _old_mode(forgery: Forgery) -> None:
    for pid in forgery.pids:
        forgery.core(pid).tc.old_seccomp_mode = 0


def _tree(change: Any) -> Change:
    return lambda forgery: change(forgery.image("pstree.img"))


add("a tree with two roots", "ImageDamaged", _tree(lambda tree: setattr(tree[-1], "ppid", 0)))
add("a tree that bites its tail", "ImageDamaged", _tree(lambda tree: setattr(tree[0], "ppid", tree[-1].pid)))
add("one process twice", "ImageDamaged", _tree(lambda tree: tree.append(tree[-1])))
add("a process with number 0", "ImageDamaged", _tree(lambda tree: setattr(tree[-1], "pid", 0)))
add("two hundred thousand threads", "ImageDamaged", _tree(lambda tree: tree[0].threads.extend(range(100_000, 300_000))))
add("half a million processes", "DumpTooLarge", _tree(lambda tree: tree.extend([tree[-1]] * 500_000)))
add("a dead root", "ImageDamaged", lambda forgery: setattr(forgery.core(1).tc, "task_state", 2))
add("a state that nobody knows", "ImageDamaged", lambda forgery: setattr(forgery.core(1).tc, "task_state", 77))
add("a machine that nobody knows", "ImageDamaged", lambda forgery: setattr(forgery.core(1), "mtype", 77))
add(
    "images of a CRIU that nobody reads any more",
    "ImagesTooOld",
    lambda forgery: setattr(forgery.inventory, "img_version", 1),
)
add("creds-1.img of an old CRIU", "ImagesTooOld", lambda forgery: forgery.raw("creds-1.img", b""))
add("rlimit-1.img of an old CRIU", "ImagesTooOld", lambda forgery: forgery.raw("rlimit-1.img", b""))
add("an LSM that nobody knows", "ImageDamaged", lambda forgery: setattr(forgery.inventory, "lsmtype", 9))
add("one file twice", "ImageDamaged", lambda forgery: forgery.opened.append(forgery.opened[0]))
add(
    "one descriptor twice",
    "ImageDamaged",
    lambda forgery: forgery.image(f"fdinfo-{forgery.ids().files_id}.img").append(
        forgery.image(f"fdinfo-{forgery.ids().files_id}.img")[0]
    ),
)
add(
    "a descriptor of a file that is not there",
    "ImageDamaged",
    lambda forgery: setattr(forgery.image(f"fdinfo-{forgery.ids().files_id}.img")[0], "id", 4711),
)
add(
    "a quarter of a million open files and more",
    "DumpTooLarge",
    lambda forgery: forgery.opened.extend([forgery.opened[0]] * 260_000),
)
add("a text of five thousand bytes", "ImageDamaged", lambda forgery: setattr(forgery.core(1).tc, "comm", b"a" * 5000))
add(
    "sixty thousand groups and more",
    "ImageDamaged",
    lambda forgery: forgery.core(1).thread_core.creds.groups.extend([5] * 70_000),
)
add(
    "no stdin, stdout and stderr",
    "DescriptorsInvalid",
    lambda forgery: forgery.raw("descriptors.json", b'["/dev/null"]'),
)
add("descriptors that are no list", "MetadataMalformed", lambda forgery: forgery.raw("descriptors.json", b'{"a":'))
