"""What CRIU is told to mount: the live pod's mounts, whatever else the checkpoint says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from shared.criu import criu_pb2 as pb
from shared.criu.decode import decode
from shared.criu.dump import read_dump
from shared.criu.images import ImageDirectory, Kind, split
from shared.errors import Refused
from shared.judge import mount_images
from shared.judge.mount_images import EMPTY, MS_NOSYMFOLLOW, pod_files
from shared.judge.mount_tree import mount_tree_refusals
from shared.judge.node_side import NodeSide
from shared.judge.rules import Rules
from shared.judge.writing import ImageFile, Raw
from shared.spec import Namespace, RuntimeSpec
from tests.support.checkpoints import SyntheticDump
from tests.support.pods import InMemory, Security, read, spec, synthetic_dump

RDONLY, NOSUID, NODEV, NOEXEC, BIND, MOVE, REC = 1, 2, 4, 8, 1 << 12, 1 << 13, 1 << 14
QUIET = NOSUID | NODEV | NOEXEC
ORDINARY = Security()
NODE = NodeSide("6.18.0")
MAY_MOUNT = Security(add=("CAP_SYS_ADMIN",))

Change = Callable[[SyntheticDump], None]


def written(made: SyntheticDump, live: RuntimeSpec, **options: Any) -> dict[str, ImageFile]:
    return {each.name: each for each in pod_files(read(made), live, **({"node": NODE} | options))}


def tree(made: SyntheticDump, live: RuntimeSpec, namespace: int = 13, **options: Any) -> dict[str, pb.MntEntry]:
    """What is written, by mountpoint."""
    (content,) = written(made, live, **options)[f"mountpoints-{namespace}.img"].pieces
    assert isinstance(content, bytes)
    entries = [decode(pb.MntEntry, piece, "written") for piece in split(content, Kind.MNTS, "written")]
    return {entry.mountpoint.decode(): entry for entry in entries}


def refused(made: SyntheticDump, live: RuntimeSpec) -> list[str]:
    return [each.sentence for each in mount_tree_refusals(read(made), live)]


def setting(path: str, **fields: Any) -> Change:
    def change(made: SyntheticDump) -> None:
        for name, value in fields.items():
            setattr(made.mount(path), name, value)

    return change


def changed_spec(path: str, *options: str, **changes: Any) -> RuntimeSpec:
    live = spec(ORDINARY)
    mounts = (replace(each, options=options) if each.destination == path else each for each in live.mounts)
    return replace(live, mounts=tuple(mounts), **changes)


def test_every_field_of_a_mount_has_a_rule() -> None:
    fields = {message: set(rules) for message, rules in mount_images.FIELDS.items()}
    assert fields == {"MntEntry": {each.name for each in pb.MntEntry.DESCRIPTOR.fields}}


@pytest.mark.parametrize(
    "security",
    [
        ORDINARY,
        MAY_MOUNT,
        Security(read_only_root=True, data_read_only=True),
        Security(privileged=True, tty=True),
        Security(uid=1000, gid=1000, tty=True),
        Security(host_network=True, share_processes=True),
    ],
)
def test_mounts_stay_at_their_places_with_their_numbers(security: Security) -> None:
    made, live = synthetic_dump(security), spec(security)
    assert refused(made, live) == []
    entries: list[Any] = made.images["mountpoints-13.img"]
    numbers = [(each.mountpoint.decode(), each.mnt_id, each.parent_mnt_id, each.root_dev) for each in entries]
    found = tree(made, live)
    assert numbers == [(path, each.mnt_id, each.parent_mnt_id, each.root_dev) for path, each in found.items()]


CHANGES: dict[str, Change] = {
    "flags that bind a host path": setting("/dev/mqueue", sb_flags=BIND | REC, source=b"/var/lib/kubelet"),
    "flags that move a mount": setting("/dev/mqueue", sb_flags=MOVE, source=b"/"),
    "every flag of a mount": setting("/dev/mqueue", flags=0xFFFFFFFF),
    "every flag of a file system": setting("/proc", sb_flags=0xFFFFFFFE),
    "a source": setting("/sys", source=b"/dev/vda"),
    "options of a mount handed in": setting("/data", options=b"size=1t"),
    "the other flag word of /proc/sys": setting("/proc/sys", flags=0, sb_flags=RDONLY),
    "the other flag word of a volume": setting("/data", flags=0, sb_flags=RDONLY),
    "a root of a mount handed in": setting("/data", root=b"/"),
    "a kind of a mount handed in": setting("/data", fstype=5),
    "internal sharing": setting("/data", internal_sharing=True),
    "options of the terminals": setting("/dev/pts", options=b"max=1,mode=777"),
    "a smaller /dev": setting("/dev", options=b"size=4k"),
    "access times": setting("/proc", flags=QUIET | 1 << 10),
    "recursive binds": setting("/data", flags=REC),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_follows_from_the_pod_is_written_whatever_the_checkpoint_says(name: str) -> None:
    made, live = synthetic_dump(ORDINARY), spec(ORDINARY)
    honest = written(made, live)
    CHANGES[name](made)
    assert refused(made, live) == []
    assert written(made, live) == honest


def test_absent_file_system_flags_leave_mounts_as_they_are() -> None:
    made, live = synthetic_dump(ORDINARY), spec(ORDINARY)
    honest = written(made, live)
    for path in ("/proc", "/data", "/proc/sys", "/dev/mqueue"):
        made.mount(path).ClearField("sb_flags")
    assert written(made, live) == honest


REFUSED: dict[str, tuple[Change, str]] = {
    "writable /sys": (setting("/sys", flags=QUIET, sb_flags=0), "writable, which the pod declares read-only"),
    "a second root": (lambda made: made.add_mount("/", ext_key=None, root=b"/", fstype=17), "over the root"),
    "a root of another spelling": (lambda made: made.add_mount("/.", ext_key=None, root=b"/"), "not spelt as"),
    "two slashes": (setting("/dev/mqueue", mountpoint=b"/dev//mqueue"), "not spelt as the kernel does"),
    "a deleted mount": (setting("/dev/mqueue", deleted=True), "of something deleted"),
    "a root that was deleted": (setting("/data", root=b"/x//deleted"), "of something deleted"),
    "a deleted root": (setting("/", deleted=True), "of something deleted"),
    "a plugin": (setting("/data", with_plugin=True), "by a plugin"),
    "a device of the dump's choice": (setting("/dev/mqueue", ext_key=b"CRIU:EXTERNAL_DEV"), "does not have there"),
    "whatever CRIU finds": (setting("/data", ext_key=b"CRIU:AUTODETECTED_MOUNT"), "does not have there"),
    "another volume's key": (setting("/etc/hosts", ext_key=b"/data"), "does not have there"),
    "a proc of another kind": (setting("/proc", fstype=16, fsname=b"ext4"), "does not have"),
    "a tmpfs with the number of a volume": (
        lambda made: setting("/dev", root_dev=made.mount("/data").root_dev)(made),
        "shows a volume or the root a second time",
    ),
    "a tmpfs with the number of the root": (
        lambda made: setting("/dev", root_dev=made.mount("/").root_dev)(made),
        "shows a volume or the root a second time",
    ),
    "two kinds with one number": (
        lambda made: setting("/dev/mqueue", root_dev=made.mount("/sys").root_dev)(made),
        "with the number of a",
    ),
    "/proc/sys of another proc": (setting("/proc/sys", root_dev=4711), "read-only in the pod's container"),
    "a release agent": (
        lambda made: made.add_mount(
            "/sys/fs/cgroup/pids", fstype=12, root=b"/", ext_key=None, options=b"pids,release_agent=/x"
        ),
        "does not have",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mount_that_the_pod_does_not_have_is_refused(name: str) -> None:
    made, live = synthetic_dump(ORDINARY), spec(ORDINARY)
    change, why = REFUSED[name]
    change(made)
    found = list(mount_tree_refusals(read(made), live))
    assert found and {each.reason for each in found} == {"MountTreeDiffers"}
    assert any(why in each.sentence for each in found), [each.sentence for each in found]


@pytest.mark.parametrize("field", [{"fsname": b"ext4"}, {"ext_mount": True}])
def test_field_of_no_ordinary_dump_is_refused(field: dict[str, Any]) -> None:
    made = synthetic_dump(ORDINARY)
    setting("/dev/mqueue", **field)(made)
    images = ImageDirectory(InMemory(made.files()), "checkpoint")
    with pytest.raises(Refused, match=f"MntEntry.{next(iter(field))}") as failure:
        list(mount_images.image_files(images, read_dump(images.files), Rules(mount_images.FIELDS)))
    assert failure.value.reason == "FieldExceeds"


def test_root_and_volumes_are_read_only_as_the_pod_says() -> None:
    for dumped, asked in ((False, True), (True, False), (True, True)):
        made = synthetic_dump(Security(read_only_root=dumped, data_read_only=dumped))
        found = tree(made, spec(Security(read_only_root=asked, data_read_only=asked)))
        assert [found[path].flags & RDONLY for path in ("/", "/data")] == [int(asked)] * 2
    assert tree(synthetic_dump(ORDINARY), changed_spec("/data", "rbind", "rro"))["/data"].flags == RDONLY


def test_criu_makes_nothing_again_on_a_read_only_volume() -> None:
    found = tree(synthetic_dump(ORDINARY), spec(Security(data_read_only=True)))["/data"]
    assert found.sb_flags == RDONLY


def test_flags_of_a_volume_are_the_pods_whatever_the_dump_says() -> None:
    made = synthetic_dump(ORDINARY)
    setting("/data", flags=NOSUID | NOEXEC)(made)
    assert tree(made, changed_spec("/data", "rbind", "nodev"))["/data"].flags == NODEV


def test_volume_is_handed_in_by_its_destination_and_bound_from_by_nothing_else() -> None:
    made = synthetic_dump(ORDINARY)
    setting("/data", root_dev=made.mount("/etc/hosts").root_dev)(made)
    found = tree(made, spec(ORDINARY))
    assert [(found[path].ext_key, found[path].options) for path in ("/data", "/etc/hosts")] == [
        (b"/data", b"/data"),
        (b"/etc/hosts", b"/etc/hosts"),
    ]


def test_proc_of_the_node_may_be_a_volume_too() -> None:
    """With hostPID and a hostPath of /proc both are one file system."""
    made = synthetic_dump(ORDINARY)
    made.mount("/data").root_dev = made.mount("/proc").root_dev
    assert refused(made, spec(ORDINARY)) == []


def test_file_systems_get_the_options_of_the_spec() -> None:
    live = spec(ORDINARY)
    dev = tree(synthetic_dump(ORDINARY), live)["/dev"]
    assert (dev.fstype, dev.source, dev.options, dev.flags) == (5, b"tmpfs", b"mode=755,size=65536k", NOSUID | 1 << 24)
    labelled = tree(synthetic_dump(ORDINARY), replace(live, mount_label="u:r:t:s0"))
    assert labelled["/dev"].options == b'mode=755,size=65536k,context="u:r:t:s0"'
    assert labelled["/proc"].options == b""


def test_masked_and_read_only_paths_are_covered_by_constants() -> None:
    made = synthetic_dump(ORDINARY)
    found, files = tree(made, spec(ORDINARY)), written(made, spec(ORDINARY))
    assert (found["/proc/keys"].ext_key, found["/proc/keys"].flags) == (b"/dev/null", NOSUID | NOEXEC)
    assert (found["/proc/sys"].flags, found["/proc/sys"].root) == (RDONLY | QUIET, b"/sys")
    cover = found["/sys/firmware"]
    assert (cover.flags, cover.sb_flags, cover.source) == (RDONLY | QUIET, RDONLY, b"tmpfs")
    assert files[f"tmpfs-dev-{cover.root_dev}.tar.gz.img"].pieces == (EMPTY,)


def test_content_of_a_tmpfs_is_that_of_the_dump() -> None:
    made = synthetic_dump(ORDINARY)
    assert written(made, spec(ORDINARY))["tmpfs-dev-65.tar.gz.img"].pieces == (Raw("tmpfs-dev-65.tar.gz.img"),)
    made.raw["tmpfs-150.tar.gz.img"] = made.raw.pop("tmpfs-dev-65.tar.gz.img")
    found = written(made, spec(ORDINARY))["tmpfs-dev-65.tar.gz.img"]
    assert found.pieces == (Raw("tmpfs-150.tar.gz.img"),)


def test_content_without_a_mount_is_not_passed_on() -> None:
    made = synthetic_dump(ORDINARY)
    made.raw["tmpfs-dev-4711.tar.gz.img"] = made.raw["tmpfs-dev-65.tar.gz.img"]
    assert "tmpfs-dev-4711.tar.gz.img" not in written(made, spec(ORDINARY))


def test_terminal_of_the_container_is_one_of_its_own() -> None:
    security = Security(tty=True)
    made = synthetic_dump(security)
    console = tree(made, spec(security))["/dev/console"]
    assert (console.root, console.flags, console.root_dev) == (b"/0", NOSUID | NOEXEC, made.mount("/dev/pts").root_dev)
    for root in (b"/99999", b"/ptmx", b"/0/1"):
        setting("/dev/console", root=root)(made)
        assert refused(made, spec(security)) != []


def test_sharing_is_what_the_pod_asks_for_and_among_no_two_mounts() -> None:
    made = synthetic_dump(ORDINARY)
    setting("/data", shared_id=3, master_id=7)(made)
    assert "shared with other namespaces" in refused(made, spec(ORDINARY))[0]
    live = changed_spec("/data", "rbind", "rshared")
    assert refused(made, live) == []
    found = tree(made, live)
    groups = [number for each in found.values() for number in (each.shared_id, each.master_id) if number]
    assert found["/data"].shared_id and found["/data"].master_id
    assert len(set(groups)) == len(groups)
    setting("/", shared_id=5)(made)
    assert not tree(made, live)["/"].shared_id


def test_links_are_not_followed_on_the_mounts_that_are_named() -> None:
    made = synthetic_dump(ORDINARY)
    number = made.mount("/data").mnt_id
    found = tree(made, spec(ORDINARY), held={number})
    assert [path for path, each in found.items() if each.flags & MS_NOSYMFOLLOW] == ["/data"]


def cgroups(made: SyntheticDump) -> None:
    """As on a node with cgroup v2 alone."""
    entries = made.images["mountpoints-13.img"]
    entries[:] = [each for each in entries if not each.mountpoint.startswith(b"/sys/fs/cgroup/")]  # type: ignore[attr-defined]
    flags = QUIET | RDONLY
    setting("/sys/fs/cgroup", fstype=23, source=b"cgroup", options=b"favordynmods", flags=flags)(made)


def test_cgroups_are_mounted_with_the_nodes_own_options() -> None:
    made = synthetic_dump(ORDINARY)
    cgroups(made)
    assert refused(made, spec(ORDINARY)) == []
    found = tree(made, spec(ORDINARY), node=replace(NODE, cgroup2_options="nsdelegate"))["/sys/fs/cgroup"]
    assert (found.options, found.flags & RDONLY) == (b"nsdelegate", RDONLY)


def test_volume_without_flags_of_the_pod_keeps_those_of_what_it_shows() -> None:
    made = synthetic_dump(ORDINARY)
    made.mount("/data").flags = 0
    node = replace(NODE, inherited=(("/data", NODEV | RDONLY), ("/etc/hosts", NODEV)))
    found = tree(made, spec(ORDINARY), node=node)["/data"]
    assert (found.flags, found.sb_flags) == (NODEV | RDONLY, RDONLY)
    asked = tree(synthetic_dump(ORDINARY), changed_spec("/data", "rbind", "ro"), node=node)["/data"]
    assert asked.flags == RDONLY


OWN_CGROUPS = replace(spec(ORDINARY), namespaces=(*spec(ORDINARY).namespaces, Namespace("cgroup", "")))
VERSION_1 = NodeSide("6.18.0", hierarchies=("memory", "cpu,cpuacct", "name=systemd"))


def hierarchies(made: SyntheticDump, options: bytes) -> None:
    made.add_mount("/sys/fs/cgroup", fstype=5, source=b"tmpfs", root=b"/", flags=15, ext_key=b"")
    made.mount("/sys/fs/cgroup").ClearField("ext_key")
    made.add_mount("/sys/fs/cgroup/own", fstype=12, source=b"cgroup", root=b"/", flags=15, options=options)
    made.mount("/sys/fs/cgroup/own").ClearField("ext_key")


@pytest.mark.parametrize(
    ("options", "mounted"),
    [
        (b"memory", b"memory"),
        (b"xattr,name=systemd,release_agent=/x", b"name=systemd"),
        (b"cpuacct,cpu", b"cpu,cpuacct"),
    ],
)
def test_hierarchy_of_the_node_is_mounted_in_a_cgroup_namespace(options: bytes, mounted: bytes) -> None:
    made = synthetic_dump(ORDINARY)
    hierarchies(made, options)
    found = tree(made, OWN_CGROUPS, node=VERSION_1)["/sys/fs/cgroup/own"]
    assert (found.fstype, found.options, found.source) == (12, mounted, b"cgroup")


@pytest.mark.parametrize("options", [b"", b"cpu", b"name=mine", b"net_cls"])
def test_hierarchy_that_the_node_does_not_have_is_refused(options: bytes) -> None:
    made = synthetic_dump(ORDINARY)
    hierarchies(made, options)
    with pytest.raises(Refused, match="a hierarchy of cgroups that this node does not have"):
        tree(made, OWN_CGROUPS, node=VERSION_1)


@pytest.mark.parametrize(
    ("fstype", "options", "written_options"),
    [
        (5, b"size=4m,mode=700,uid=1,huge=always,context=x:y", b"size=4m,mode=700,uid=1"),
        (6, b"gid=5,mode=620,ptmxmode=666,newinstance", b"gid=5,mode=620,ptmxmode=666"),
        (1, b"hidepid=2", b""),
        (23, b"memory_localevents", b"nsdelegate"),
    ],
)
def test_mount_of_a_process_that_may_mount_is_kept(fstype: int, options: bytes, written_options: bytes) -> None:
    made = synthetic_dump(MAY_MOUNT)
    made.add_mount("/mnt", fstype=fstype, root=b"/", ext_key=None, source=b"/dev/vda", options=options, flags=BIND | 5)
    made.raw[f"tmpfs-dev-{made.mount('/mnt').root_dev}.tar.gz.img"] = EMPTY
    assert refused(made, spec(MAY_MOUNT)) == []
    assert refused(made, spec(ORDINARY)) != []
    found = tree(made, spec(MAY_MOUNT), node=replace(NODE, cgroup2_options="nsdelegate"))["/mnt"]
    assert (found.fstype, found.options, found.flags) == (fstype, written_options, RDONLY | NODEV)
    assert found.source in (b"proc", b"tmpfs", b"devpts", b"cgroup2")


def test_second_mount_of_one_file_system_is_like_the_first() -> None:
    made = synthetic_dump(MAY_MOUNT)
    made.add_mount("/mnt", fstype=1, root=b"/", ext_key=None, source=b"x", root_dev=made.mount("/proc").root_dev)
    found = tree(made, spec(MAY_MOUNT))
    assert (found["/mnt"].source, found["/mnt"].options) == (found["/proc"].source, found["/proc"].options)


def test_mount_namespace_of_a_process_has_copies_of_the_containers_mounts() -> None:
    made, live = synthetic_dump(MAY_MOUNT), spec(Security(add=("CAP_SYS_ADMIN",), data_read_only=True))
    made.nest_mounts(2)
    assert refused(made, live) == []
    own, nested = tree(made, live), tree(made, live, 14)
    assert list(own) == list(nested)
    for path, copied in nested.items():
        original = own[path]
        assert (copied.mnt_id, copied.ext_key, copied.flags) == (original.mnt_id + 1000, b"", original.flags)
        same = ("root_dev", "source", "options", "root", "fstype", "sb_flags")
        assert [getattr(copied, name) for name in same] == [getattr(original, name) for name in same]


@pytest.mark.parametrize(
    "fields", [{"root_dev": 4711}, {"root": b"/etc"}, {"mountpoint": b"/elsewhere"}, {"ext_key": b"/data"}]
)
def test_mount_namespace_of_a_process_has_nothing_else(fields: dict[str, Any]) -> None:
    made = synthetic_dump(MAY_MOUNT)
    made.nest_mounts(2)
    copies: list[Any] = made.images["mountpoints-14.img"]
    (data,) = [each for each in copies if each.mountpoint == b"/data"]
    for name, value in fields.items():
        setattr(data, name, value)
    assert "in a mount namespace of a process" in refused(made, spec(MAY_MOUNT))[0]
    with pytest.raises(Refused, match="does not have"):
        written(made, spec(MAY_MOUNT))


def test_mounts_of_a_namespace_that_no_living_process_is_in_are_not_written() -> None:
    made = synthetic_dump(MAY_MOUNT)
    made.nest_mounts(2)
    made.core(2).tc.task_state = 6  # dead
    assert "mountpoints-14.img" not in written(made, spec(MAY_MOUNT))
