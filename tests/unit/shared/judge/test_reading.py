"""A checkpoint's images are read once, judged, and written anew: what CRIU gets of them in any pod."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.archive import CheckpointFiles
from shared.criu import criu_pb2 as pb
from shared.criu.images import Kind, split
from shared.errors import CheckpointInvalid, Refused
from shared.judge import NodeSide, PodIdentity, judge, read
from shared.judge.mount_images import MS_NOSYMFOLLOW
from shared.judge.writing import Raw
from tests.support.checkpoints import SyntheticDump, core_of_task
from tests.support.open_files import with_every_kind
from tests.support.pods import InMemory, Security, spec, synthetic_dump

Dumped = Callable[..., CheckpointFiles]
NODE = NodeSide("6.18.0")


def names(made: SyntheticDump) -> set[str]:
    return {each.name for each in read(InMemory(made.files())).files}


def test_every_image_that_a_restore_needs_is_written() -> None:
    assert names(SyntheticDump.of_processes()) == {
        "core-1.img", "descriptors.json", "fdinfo-1.img", "files.img", "fs-1.img", "ids-1.img", "inventory.img",
        "mm-1.img", "netns-10.img", "pagemap-1.img", "pages-1.img", "pstree.img", "seccomp.img",
    }  # fmt: skip


def test_what_the_process_tree_does_not_name_is_not_written() -> None:
    made = SyntheticDump.of_processes()
    before = names(made)
    for name in ("core-9.img", "mm-9.img", "fs-9.img", "ids-9.img", "fdinfo-9.img", "pages-9.img"):
        made.raw[name] = made.files("")[name.replace("9", "1")]
    made.images["ghost-file-9.img"] = [pb.GhostFileEntry(uid=0, gid=0, mode=0o104755)]
    assert names(made) - before == set()


def test_two_readings_of_one_dump_write_the_same() -> None:
    first, second = (read(InMemory(with_every_kind().files())) for _ in range(2))
    assert first.files == second.files
    assert [each.name for each in first.files] == sorted(each.name for each in first.files)


def test_facts_are_of_the_dump_although_the_rules_empty_what_is_derived() -> None:
    """core.tc.loginuid is derived; the messages that were read keep it."""
    made = SyntheticDump.of_processes()
    made.core(1).tc.loginuid = 7
    reading = read(InMemory(made.files()))
    assert reading.dump.source.one(Kind.CORE, pb.CoreEntry, 1).tc.loginuid == 7
    (core,) = [each for each in reading.files if each.name == "core-1.img"]
    (content,) = core.pieces
    assert isinstance(content, bytes)
    (message,) = split(content, Kind.CORE, "core-1.img")
    assert not pb.CoreEntry.FromString(message).tc.HasField("loginuid")


def test_pages_are_links_and_only_page_maps_are_copied() -> None:
    """Page maps are read to their end, as the bytes that CRIU itself writes or not at all (pagemaps.py)."""
    files = read(InMemory(SyntheticDump.of_processes(2).files())).files
    assert {each.name for each in files if each.linked} == {"pages-1.img", "pages-2.img"}
    copied = {each.name for each in files if not each.linked and any(isinstance(piece, Raw) for piece in each.pieces)}
    assert copied == {"pagemap-1.img", "pagemap-2.img"}


def test_images_below_another_directory_are_read_there() -> None:
    found = read(InMemory(SyntheticDump.of_processes().files("elsewhere")), directory="elsewhere")
    assert found.dump.root.pid == 1


def test_what_no_pod_may_have_is_refused() -> None:
    made = SyntheticDump.of_processes()
    made.core(1).thread_core.sched_policy = 6
    with pytest.raises(Refused, match="SCHED_OTHER") as failure:
        read(InMemory(made.files()))
    assert failure.value.reason == "FieldExceeds"


def test_field_that_no_criu_has_is_refused() -> None:
    files = SyntheticDump.of_processes().files()
    whole = files["checkpoint/fs-1.img"]
    content = whole[12:] + b"\xf8\x07\x01"
    files["checkpoint/fs-1.img"] = whole[:8] + len(content).to_bytes(4, "little") + content
    with pytest.raises(CheckpointInvalid, match=r"FsEntry\.127") as failure:
        read(InMemory(files))
    assert failure.value.reason == "ImageUnknown"


# ---- with a pod ----


def mount_flags(made: SyntheticDump, security: Security, node: NodeSide = NODE) -> dict[str, int]:
    live = spec(security)
    judgement = judge(read(InMemory(made.files())).dump, live, live, PodIdentity(), node=node)
    (image,) = [each for each in judgement.images if each.name == "mountpoints-13.img"]
    (content,) = image.pieces
    assert isinstance(content, bytes)
    entries = map(pb.MntEntry.FromString, split(content, Kind.MNTS, image.name))
    return {entry.mountpoint.decode(): entry.flags for entry in entries}


def test_judgement_has_the_mount_tree_and_the_reading_has_not() -> None:
    made, live = synthetic_dump(Security()), spec(Security())
    reading = read(InMemory(made.files()))
    judgement = judge(reading.dump, live, live, PodIdentity(), node=NODE)
    pods, common = {each.name for each in judgement.images}, {each.name for each in reading.files}
    assert {"mountpoints-13.img", "tmpfs-dev-65.tar.gz.img"} <= pods
    assert not pods & common
    assert judgement.waived == ()


def test_mounts_on_which_criu_follows_no_link_are_written_so() -> None:
    made = synthetic_dump(Security())
    usk = pb.UnixSkEntry(
        id=77,
        ino=9,
        type=1,
        state=10,
        name=b"/data/app.sock\0",
        opts=pb.SkOptsEntry(so_sndbuf=212992, so_rcvbuf=212992),
    )
    made.add_file(pb.FileEntry(type=5, id=77, usk=usk), descriptor=9)
    followed = {path for path, flags in mount_flags(made, Security()).items() if not flags & MS_NOSYMFOLLOW}
    assert not {"/", "/data"} & followed
    assert {"/proc", "/dev/pts", "/sys"} <= followed
    older = mount_flags(made, Security(), NodeSide("5.13.0"))
    assert not any(flags & MS_NOSYMFOLLOW for flags in older.values())


def test_refusal_that_is_waived_is_said() -> None:
    live = spec(Security(no_new_privileges=True))
    dump = read(InMemory(synthetic_dump(Security()).files())).dump
    with pytest.raises(Refused) as failure:
        judge(dump, live, live, PodIdentity(), node=NODE)
    assert failure.value.reason == "NoNewPrivilegesLost"
    passed = judge(dump, live, live, PodIdentity(), node=NODE, waived={"NoNewPrivilegesLost"}).waived
    assert {each.reason for each in passed} == {"NoNewPrivilegesLost"}


def test_ended_process_is_written_without_what_it_had() -> None:
    made = SyntheticDump.of_processes(2)
    core = core_of_task()
    core.tc.task_state = 6
    made.images["core-2.img"] = [core]
    assert not {"mm-2.img", "fs-2.img", "fdinfo-2.img", "ids-2.img", "pages-2.img"} & names(made)
