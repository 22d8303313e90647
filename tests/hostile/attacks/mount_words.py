"""Words of mounts that CRIU passes to the kernel or compares, and mount namespaces that nobody should get."""

from __future__ import annotations

from typing import Any

from shared.criu import criu_pb2 as pb
from tests.hostile.attack import Change, add, add_harmless, attack
from tests.hostile.forgery import Forgery

RDONLY, REMOUNT, BIND, MOVE, REC, SHARED = 1, 32, 4096, 8192, 16384, 1 << 20
"""linux/mount.h."""
NODE = b"/var/lib/kubelet"
_NUMBER = 99


def _changed(*paths: str, **fields: Any) -> Change:
    def change(forgery: Forgery) -> None:
        for path in paths:
            for name, value in fields.items():
                setattr(forgery.mount(path), name, value)

    return change


# ---- CRIU passes sb_flags and source to mount(2) ----
for _name, _word in (
    ("MS_BIND and MS_REC", BIND | REC),
    ("MS_MOVE", MOVE),
    ("MS_REMOUNT", REMOUNT),
    ("MS_SHARED", SHARED),
    ("every bit but MS_RDONLY", 0xFFFFFFFE),
):
    for _path in ("/dev/mqueue", "/dev", "/proc"):
        add_harmless(f"{_name} and a source on the node at {_path}", _changed(_path, sb_flags=_word, source=NODE))
add_harmless("every bit of sb_flags at a volume", _changed("/write", sb_flags=0xFFFFFFFE, source=NODE), "mounted")


# ---- whether it is read-only stands in two words ----
def _moved_to_sb_flags(*paths: str) -> Change:
    def change(forgery: Forgery) -> None:
        for path in paths:
            mount = forgery.mount(path)
            mount.flags, mount.sb_flags = mount.flags & ~RDONLY, mount.sb_flags | RDONLY

    return change


def _without_sb_flags(forgery: Forgery) -> None:
    for mount in forgery.mounts:
        mount.ClearField("sb_flags")


add_harmless("a read-only volume by the other word", _moved_to_sb_flags("/read"), "mounted")
add_harmless("a read-only root by the other word", _moved_to_sb_flags("/"), "mounted")
add_harmless("read-only paths of /proc by the other word", _moved_to_sb_flags("/proc/sys", "/proc/irq"))
add_harmless("flags of file systems left out", _without_sb_flags)
add_harmless("flags of file systems left out in a pod with volumes", _without_sb_flags, "mounted")


# ---- CRIU binds a mount from another of the same device, source and options ----
@attack("one more mount of a volume's device, which CRIU would bind from the volume", "MountTreeDiffers", "mounted")
def _of_a_volume(forgery: Forgery) -> None:
    volume = forgery.mount("/read")
    forgery.add_mount("/mnt", "/dev/mqueue", root_dev=volume.root_dev, source=volume.source, options=volume.options)


@attack("a file system of the container with a volume's device", "MountTreeDiffers", "mounted")
def _device_of_a_volume(forgery: Forgery) -> None:
    volume, queues = forgery.mount("/read"), forgery.mount("/dev/mqueue")
    queues.root_dev, queues.source, queues.options = volume.root_dev, volume.source, volume.options


def _numbered_as_a_volume(forgery: Forgery) -> None:
    """As of a container that has such a file system of the node as a volume: a number alone binds nothing."""
    forgery.mount("/dev/mqueue").root_dev = forgery.mount("/read").root_dev


def _like_a_volume(forgery: Forgery) -> None:
    _numbered_as_a_volume(forgery)
    forgery.mount("/dev/mqueue").source = forgery.mount("/read").source


add_harmless(
    "a file system of the container with a volume's device and source",
    _like_a_volume,
    "mounted",
    like=_numbered_as_a_volume,
)


def _volume_by_device(forgery: Forgery) -> None:
    forgery.mount("/read").ext_key = b"CRIU:EXTERNAL_DEV"


add("a volume that CRIU finds by its device", "MountTreeDiffers", _volume_by_device, "mounted")


def _other_root(path: str) -> Change:
    return lambda forgery: forgery.add_mount(path, "/", source=NODE, fstype=17) and None


add("a second root as /.", "MountTreeDiffers", _other_root("/."))
add("a second root as //", "MountTreeDiffers", _other_root("//"))
add("a disk that CRIU finds by its device", "MountTreeDiffers", _changed("/etc/hosts", ext_key=b"CRIU:EXTERNAL_DEV"))


# ---- mount namespaces ----
def _overlay(forgery: Forgery, *, renumbered: bool) -> None:
    """A second mount namespace whose root is an overlay of the node's directories."""
    copies = []
    for mount in forgery.mounts:
        entry = pb.MntEntry()
        entry.CopyFrom(mount)
        if renumbered:
            entry.mnt_id += 5000
            entry.parent_mnt_id += 5000
        if entry.mountpoint == b"/":
            entry.source, entry.options = b"overlay", b"lowerdir=/etc:/root,upperdir=/tmp/up,workdir=/tmp/work"
        copies.append(entry)
    forgery.new_image(f"mountpoints-{_NUMBER}.img", *copies)


def _dead(forgery: Forgery) -> None:
    """A child that has ended and that nobody has waited for (TASK_DEAD; criu/cr-dump.c, dump_one_zombie)."""
    child = pb.PstreeEntry(pid=4000, ppid=1, pgid=1, sid=1, threads=[4000])
    forgery.image("pstree.img").append(child)
    core = pb.CoreEntry(mtype=forgery.core().mtype)
    core.tc.task_state, core.tc.comm, core.tc.exit_code = 2, b"ended", 0
    forgery.new_image("core-4000.img", core)


def _dead_with_namespace(forgery: Forgery) -> None:
    _dead(forgery)
    ids = pb.TaskKobjIdsEntry()
    ids.CopyFrom(forgery.ids())
    ids.mnt_ns_id = _NUMBER
    forgery.new_image("ids-4000.img", ids)
    _overlay(forgery, renumbered=True)


add_harmless("an ended process with a mount namespace of its own", _dead_with_namespace, like=_dead)
add_harmless("a mount namespace that no process is in", lambda forgery: _overlay(forgery, renumbered=True))


@attack("a nested mount namespace that shows the node", "NestedNamespaces")
def _nested(forgery: Forgery) -> None:
    forgery.ids(forgery.pids[-1]).mnt_ns_id = _NUMBER
    _overlay(forgery, renumbered=True)


@attack("numbers of mounts repeated in a nested mount namespace", "ImageDamaged")
def _repeated(forgery: Forgery) -> None:
    forgery.ids(forgery.pids[-1]).mnt_ns_id = _NUMBER
    _overlay(forgery, renumbered=False)
