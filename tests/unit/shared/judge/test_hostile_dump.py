"""A dump whose images hold more than the pod grants is refused, whatever the archive's spec.dump says.

Each rule with the smallest change that breaks it, and with the pod that makes the same change harmless.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from shared.criu import criu_pb2 as pb
from shared.errors import Refused
from shared.judge import PodIdentity, check_dump
from shared.judge.namespaces import namespace_refusals
from shared.spec import Device, Namespace
from shared.special_files import SpecialFile
from tests.support.checkpoints import SyntheticDump, core_of_thread
from tests.support.pods import ALL, Security, read, spec, synthetic_dump, words

Change = Callable[[SyntheticDump], None]

ORDINARY = Security()
NOBODY = Security(uid=1000, gid=1000, no_new_privileges=True, drop=("ALL",))


def thread(pid: int, **fields: Any) -> Change:
    """Sets fields of the thread's credentials."""

    def change(dump: SyntheticDump) -> None:
        creds = dump.core(pid).thread_core.creds
        for key, value in fields.items():
            if isinstance(value, list):
                getattr(creds, key)[:] = value
            else:
                setattr(creds, key, value)

    return change


def opened(kind: int, **part: Any) -> Change:
    def change(dump: SyntheticDump) -> None:
        dump.add_file(pb.FileEntry(type=kind, id=77, **part), descriptor=9)

    return change


def regular(
    path: str, *, flags: int = os.O_RDONLY, mode: int | None = 0o100644, mount: int | None = None, ext: bool = False
) -> Change:
    """``mount``: its id, the innermost one at ``path`` otherwise."""

    def change(dump: SyntheticDump) -> None:
        number = dump.mount_of(path).mnt_id if mount is None else mount
        reg = pb.RegFileEntry(id=77, flags=flags, name=path.encode(), mnt_id=number, mode=mode, ext=ext)
        opened(1, reg=reg)(dump)

    return change


def unix_socket(path: str, **fields: Any) -> Change:
    return opened(5, usk=pb.UnixSkEntry(id=77, ino=9, type=1, state=10, name=path.encode() + b"\0", **fields))


def dangling_socket(dump: SyntheticDump) -> None:
    usk = pb.UnixSkEntry(id=77, ino=9, type=1, state=10, name=b"/run/x")
    dump.images["files.img"].append(pb.FileEntry(type=5, id=77, usk=usk))


def on_the_mount_at(mountpoint: str, path: str) -> Change:
    return lambda dump: regular(path, mount=dump.mount(mountpoint).mnt_id)(dump)


def opened_on(mount: str, path: str, **fields: Any) -> Change:
    """A file open for writing on a mount that the dump has writable."""

    def change(dump: SyntheticDump) -> None:
        entry(mount, flags=0, sb_flags=0)(dump)
        regular(path, mount=dump.mount(mount).mnt_id, **{"flags": os.O_WRONLY, **fields})(dump)

    return change


def mounted(path: str, **fields: Any) -> Change:
    """One more mount that CRIU would make itself."""
    return lambda dump: dump.add_mount(path, **{"root": b"/", "ext_key": None, **fields})


def entry(path: str, **fields: Any) -> Change:
    def change(dump: SyntheticDump) -> None:
        mount = dump.mount(path)
        for key, value in fields.items():
            setattr(mount, key, value)

    return change


def ids(pid: int, **fields: Any) -> Change:
    def change(dump: SyntheticDump) -> None:
        for key, value in fields.items():
            setattr(dump.ids(pid), key, value)

    return change


def everybody(**fields: Any) -> Change:
    def change(dump: SyntheticDump) -> None:
        for pid in (1, 2):
            ids(pid, **fields)(dump)

    return change


def seccomp_off(pid: int) -> Change:
    def change(dump: SyntheticDump) -> None:
        dump.core(pid).thread_core.ClearField("seccomp_filter")
        dump.core(pid).thread_core.seccomp_mode = 0

    return change


def few_limits(count: int) -> Change:
    def change(dump: SyntheticDump) -> None:
        del dump.core(1).tc.rlimits.rlimits[count:]

    return change


def second_thread(dump: SyntheticDump) -> None:
    """A thread beside the leader, with no_new_privs off."""
    dump.images["pstree.img"][0].threads.append(30)  # type: ignore[attr-defined]
    core = pb.CoreEntry()
    core.CopyFrom(dump.core(1))
    core.thread_core.creds.no_new_privs = 0
    dump.images["core-30.img"] = [core]


def ghost(mode: int, device: int) -> Change:
    def change(dump: SyntheticDump) -> None:
        dump.images["remap-fpath.img"] = [pb.RemapFilePathEntry(orig_id=5, remap_id=1, remap_type=1)]
        dump.images["ghost-file-1.img"] = [pb.GhostFileEntry(uid=0, gid=0, mode=mode, rdev=device)]

    return change


def linked_by(path: str) -> Change:
    """As though the file were another name of one that was deleted."""

    def change(dump: SyntheticDump) -> None:
        regular(path)(dump)
        dump.images["remap-fpath.img"] = [pb.RemapFilePathEntry(orig_id=1, remap_id=77, remap_type=0)]

    return change


def of_ended(pid: int, path: str, **fields: Any) -> Change:
    """A file of a process that had ended, for which CRIU makes process ``pid`` (remap-file-path.proto, PROCFS)."""

    def change(dump: SyntheticDump) -> None:
        regular(path, **fields)(dump)
        dump.images["remap-fpath.img"] = [pb.RemapFilePathEntry(orig_id=77, remap_id=pid, remap_type=2)]

    return change


def timer(clock: int) -> Change:
    return lambda dump: dump.core(2).tc.timers.posix.add(clock_id=clock) and None


def file_of_a_thread(dump: SyntheticDump) -> None:
    second_thread(dump)
    dump.core(30).thread_core.creds.no_new_privs = dump.core(1).thread_core.creds.no_new_privs
    regular("/proc/30/maps")(dump)


def open_below_uncovered(dump: SyntheticDump) -> None:
    """A directory that leads to the settings when /proc/sys is made read-only over it."""
    mounts = dump.images["mountpoints-13.img"]
    dump.images["mountpoints-13.img"] = [each for each in mounts if each.mountpoint != b"/proc/sys"]  # type: ignore[attr-defined]
    regular("/proc/sys/net", mode=stat.S_IFDIR | 0o555)(dump)


@dataclass(frozen=True)
class Rule:
    name: str
    change: Change
    reason: str
    says: str
    pod: Security = ORDINARY
    granted: Security | None = None
    """A pod that may have it; None where none may."""
    live: dict[str, Any] = field(default_factory=dict)
    """Fields of the live spec that the refusing pod has beside ``pod``."""


MKNOD = Security(drop=("CAP_MKNOD",))
RULES = (
    # credentials
    Rule("permitted", thread(2, cap_prm=words(ALL)), "CapabilitiesExceed", "holds", granted=Security(privileged=True)),
    Rule("effective", thread(2, cap_eff=words(1 << 21)), "CapabilitiesExceed", "CAP_SYS_ADMIN"),
    Rule("bounding", thread(1, cap_bnd=words(1 << 21)), "CapabilitiesExceed", "could gain CAP_SYS_ADMIN"),
    Rule("inheritable", thread(1, cap_inh=words(1 << 21)), "CapabilitiesExceed", "could pass on CAP_SYS_ADMIN"),
    Rule("ambient", thread(1, cap_amb=words(1 << 21)), "CapabilitiesExceed", "holds CAP_SYS_ADMIN"),
    Rule("unknown capability", thread(1, cap_prm=words(1 << 60)), "CapabilitiesExceed", "CAP_60"),
    Rule(
        "capabilities of nobody",
        thread(1, cap_prm=words(1)),
        "CapabilitiesExceed",
        "CAP_CHOWN",
        Security(uid=1000, gid=1000, no_new_privileges=True),
        Security(uid=1000, gid=1000),
    ),
    Rule("uid", thread(2, euid=0), "IdentityExceeds", "process 2 (app) of the checkpoint runs as uid 0", NOBODY),
    Rule("saved uid", thread(1, suid=0), "IdentityExceeds", "uid 0", NOBODY),
    Rule(
        "uid of root without CAP_SETUID",
        thread(1, uid=5, euid=5, suid=5, fsuid=5),
        "IdentityExceeds",
        "uid 5",
        Security(drop=("ALL",)),
        Security(),
    ),
    Rule("gid", thread(1, fsgid=0), "IdentityExceeds", "group 0", NOBODY),
    Rule("groups", thread(1, groups=[1000, 42]), "IdentityExceeds", "group 42", NOBODY, replace(NOBODY, groups=(42,))),
    Rule("privileges", thread(2, no_new_privs=0), "NoNewPrivilegesLost", "process 2", Security(no_new_privileges=True)),
    Rule("privileges of a thread", second_thread, "NoNewPrivilegesLost", "process 1", Security(no_new_privileges=True)),
    Rule("seccomp", seccomp_off(2), "SeccompLost", "process 2", Security(seccomp=True), Security()),
    Rule("securebits", thread(1, secbits=1), "SecurebitsExceed", "securebits 0x1", Security(drop=("ALL",)), Security()),
    Rule("limits left out", few_limits(3), "RlimitExceeds", "has 3 of 16 resource limits"),
    Rule(
        "apparmor",
        thread(1, lsm_profile=b"unconfined-by-me"),
        "LsmLabelDiffers",
        "label unconfined-by-me, the pod under cri-containerd.apparmor.d",
        granted=Security(),
        live={"apparmor_profile": "cri-containerd.apparmor.d"},
    ),
    Rule(
        "selinux",
        thread(1, lsm_profile=b""),
        "LsmLabelDiffers",
        "none",
        granted=Security(),
        live={"selinux_label": "system_u:system_r:container_t:s0:c1,c2"},
    ),
    # mounts
    Rule(
        "file of a read-only root open for writing",
        opened_on("/", "/root/held"),
        "WritableFileOpen",
        "a read-only root, but the checkpoint has /root/held open",
        Security(read_only_root=True),
        Security(),
    ),
    Rule(
        "file of a read-only volume open for writing",
        opened_on("/data", "/data/file"),
        "WritableFileOpen",
        "/data read-only, but the checkpoint has /data/file open",
        Security(data_read_only=True),
        Security(),
    ),
    Rule("sys writable", entry("/sys", flags=0, sb_flags=0), "MountTreeDiffers", "sysfs /sys"),
    Rule("volume elsewhere", entry("/data", mountpoint=b"/etc"), "MountTreeDiffers", "/etc"),
    Rule("volume unknown", lambda dump: dump.add_mount("/var/lib/other"), "MountTreeDiffers", "/var/lib/other"),
    Rule(
        "volume twice, spelt differently",
        lambda dump: dump.add_mount("//data", ext_key=b"/data"),
        "MountTreeDiffers",
        "twice, one over the other",
    ),
    Rule("key of no volume", entry("/data", ext_key=b"/proc"), "MountTreeDiffers", "/data"),
    Rule(
        "tmpfs",
        mounted("/root", fstype=5, source=b"tmpfs"),
        "MountTreeDiffers",
        "tmpfs /root",
        granted=Security(add=("CAP_SYS_ADMIN",)),
    ),
    Rule("second proc", mounted("/mnt", fstype=1, source=b"proc"), "MountTreeDiffers", "proc /mnt"),
    Rule("devtmpfs", mounted("/mnt", fstype=3, source=b"devtmpfs"), "MountTreeDiffers", "devtmpfs /mnt"),
    Rule("disk", mounted("/mnt", fstype=16, fsname=b"ext4", source=b"/dev/vda"), "MountTreeDiffers", "ext4 /mnt"),
    Rule("proc for sys", entry("/sys", fstype=1), "MountTreeDiffers", "proc /sys"),
    Rule("mask writable", entry("/sys/firmware", flags=0, sb_flags=0), "MountTreeDiffers", "/sys/firmware"),
    Rule("sysctls writable", entry("/proc/sys", flags=0), "MountTreeDiffers", "/proc/sys"),
    Rule("shared with the node", entry("/etc/hosts", shared_id=3), "MountTreeDiffers", "shared with other namespaces"),
    Rule(
        "mask named as crun does, where none is",
        mounted("/proc/uptime", fstype=5, source=b"tmpfs", root=b"/null", ext_key=b"/proc/uptime"),
        "MountTreeDiffers",
        "tmpfs /proc/uptime",
    ),
    Rule("follows the node", entry("/etc/hosts", master_id=3), "MountTreeDiffers", "following another namespace's"),
    Rule("no terminal", mounted("/dev/console", fstype=5, source=b"tmpfs"), "MountTreeDiffers", "/dev/console"),
    Rule("cgroup of another kind", mounted("/sys/fs/cgroup/x", fstype=1), "MountTreeDiffers", "/sys/fs/cgroup/x"),
    # files
    Rule(
        "raw socket",
        opened(4, isk=pb.InetSkEntry(id=77, family=2, type=3, proto=1, src_addr=[0], dst_addr=[0])),
        "FileExceeds",
        "a raw socket open, which takes CAP_NET_RAW",
        Security(drop=("CAP_NET_RAW",)),
        Security(),
    ),
    Rule(
        "packet socket",
        opened(10, psk=pb.PacketSockEntry(id=77)),
        "FileExceeds",
        "CAP_NET_RAW",
        Security(drop=("CAP_NET_RAW",)),
        Security(),
    ),
    Rule("tun", opened(15), "FileExceeds", "CAP_NET_ADMIN", granted=Security(add=("CAP_NET_ADMIN",))),
    Rule("bpf", opened(19), "FileExceeds", "a BPF map"),
    Rule("fanotify", opened(12), "FileExceeds", "CAP_SYS_ADMIN", granted=Security(add=("CAP_SYS_ADMIN",))),
    Rule("foreign file", opened(16), "FileExceeds", "of the node"),
    Rule("foreign regular file", regular("/x", ext=True), "FileExceeds", "of the node"),
    Rule("unknown kind", opened(99), "FileExceeds", "of the node"),
    Rule("emptied when it is opened", regular("/etc/passwd", flags=os.O_TRUNC), "FileExceeds", "create or empty"),
    Rule("made when it is opened", regular("/etc/x", flags=os.O_RDWR | os.O_CREAT), "FileExceeds", "create or empty"),
    Rule("by a link in the root", on_the_mount_at("/proc", "/a/kcore"), "FileExceeds", "on another mount"),
    Rule("by a link below a mount", on_the_mount_at("/dev", "/proc/meminfo"), "FileExceeds", "on another mount"),
    Rule("spelt with a second slash", on_the_mount_at("/proc", "//a//proc/kcore"), "FileExceeds", "on another mount"),
    Rule("on a mount that is not there", regular("/etc/passwd", mount=4711), "FileExceeds", "on another mount"),
    Rule("masked", regular("/proc/kcore"), "ProtectedPathOpen", "/proc/kcore", granted=Security(privileged=True)),
    Rule("below masked", regular("/sys/firmware/acpi/tables"), "ProtectedPathOpen", "/sys/firmware/acpi/tables"),
    Rule(
        "sysctl",
        regular("/proc/sys/kernel/core_pattern", flags=os.O_WRONLY),
        "ProtectedPathOpen",
        "core_pattern open for writing",
        granted=Security(privileged=True),
    ),
    Rule("sysctl both", regular("/proc/sys/vm/x", flags=os.O_RDWR), "ProtectedPathOpen", "for writing"),
    Rule(
        "disk open",
        regular("/dev/vda", mode=stat.S_IFBLK | 0o600),
        "DeviceExceeds",
        "the device /dev/vda open",
        granted=Security(privileged=True),
    ),
    Rule("device open", regular("/dev/mem", mode=stat.S_IFCHR | 0o600), "DeviceExceeds", "/dev/mem"),
    Rule(
        "deleted device",
        ghost(stat.S_IFBLK | 0o600, os.makedev(254, 0)),
        "DeviceExceeds",
        "a deleted file a block device 254:0",
        MKNOD,
    ),
    Rule(
        "netfilter's groups",
        opened(13, nlsk=pb.NetlinkSkEntry(id=77, protocol=12, groups=[1])),
        "SocketExceeds",
        "listens to groups of the netlink protocol 12",
        granted=Security(add=("CAP_NET_ADMIN",)),
    ),
    Rule(
        "another's netlink socket",
        opened(13, nlsk=pb.NetlinkSkEntry(id=77, protocol=0, dst_portid=5)),
        "SocketExceeds",
        "sends to others by the netlink protocol 0",
        granted=Security(add=("CAP_NET_ADMIN",)),
    ),
    Rule(
        "mark of a packet socket",
        opened(10, psk=pb.PacketSockEntry(id=77, opts=pb.SkOptsEntry(so_mark=1))),
        "SocketExceeds",
        "a mark or a priority",
        granted=Security(add=("CAP_NET_ADMIN",)),
    ),
    Rule(
        "buffer beyond every limit",
        opened(5, usk=pb.UnixSkEntry(id=77, ino=5, type=1, opts=pb.SkOptsEntry(so_rcvbuf=1 << 30))),
        "SocketExceeds",
        "a buffer of 1073741824 bytes",
        granted=Security(add=("CAP_NET_ADMIN",)),
    ),
    Rule(
        "alarm by a descriptor",
        opened(17, tfd=pb.TimerfdEntry(clockid=9)),
        "TimerExceeds",
        "CAP_WAKE_ALARM",
        granted=Security(add=("CAP_WAKE_ALARM",)),
    ),
    Rule("alarm", timer(8), "TimerExceeds", "CAP_WAKE_ALARM", granted=Security(add=("CAP_WAKE_ALARM",))),
    Rule(
        "signals as root",
        opened(6, efd=pb.EventfdFileEntry(fown=pb.FownEntry(pid=1, uid=1000, euid=0, signum=9))),
        "IdentityExceeds",
        "sends signals as uid 0",
        NOBODY,
        Security(),
    ),
    Rule(
        "signals as root, of a part that the file's kind does not have",
        opened(6, reg=pb.RegFileEntry(fown=pb.FownEntry(pid=1, uid=0, euid=0))),
        "IdentityExceeds",
        "sends signals as uid 0",
        NOBODY,
        Security(),
    ),
    Rule(
        "memory of another container",
        regular("/proc/4711/mem"),
        "FileExceeds",
        "/proc/4711/mem open, of a process that is not its own",
        granted=Security(add=("CAP_SYS_PTRACE",)),
    ),
    *(
        Rule(
            f"by the link {path}", regular(path, mode=mode), "FileExceeds", f"{path}, a file by way of a process' links"
        )
        for path, mode in (
            ("/proc/1/exe", 0o100755),
            ("/proc/self/exe", 0o100755),
            ("/proc/1/task/1/exe", 0o100755),
            ("/proc/1/cwd", 0o040755),
            ("/proc/1/root", 0o040755),
            ("/proc/1/root/etc/passwd", 0o100644),
            ("/proc/1/fd/7", 0o100644),
            ("/proc/1/map_files/400000-401000", 0o100644),
            ("/proc/1/ns/mnt", 0o100444),
        )
    ),
    *(
        Rule(f"{path} of who opens it", regular(path), "FileExceeds", capability, granted=Security(add=(capability,)))
        for path, capability in (
            ("/proc/kallsyms", "CAP_SYSLOG"),
            ("/proc/modules", "CAP_SYSLOG"),
            ("/proc/iomem", "CAP_SYS_ADMIN"),
            ("/proc/1/pagemap", "CAP_SYS_ADMIN"),
            ("/proc/1/task/1/stack", "CAP_SYS_ADMIN"),
            ("/sys/module/ext4/sections/.text", "CAP_SYSLOG"),
        )
    ),
    *(
        Rule(f"Unix socket {what}", unix_socket(path, **fields), "SocketExceeds", words)
        for what, path, fields, words in (
            ("by a link of a process", "/proc/self/fd/1007/x", {}, "at /proc/self/fd/1007/x, where no socket can be"),
            ("in the kernel's settings", "/sys/x", {}, "at /sys/x, where no socket can be"),
            ("among terminals", "/dev/pts/x", {}, "at /dev/pts/x, where no socket can be"),
            ("upwards", "/tmp/../x", {}, "leads upwards"),
            ("upwards from its folder", "../x", {"name_dir": b"/tmp"}, "leads upwards"),
            ("from a folder that is nowhere", "x", {"name_dir": b"tmp"}, "no absolute path"),
            ("from outside", "/tmp/x", {"uflags": 1}, "from outside the container"),
        )
    ),
    Rule("Unix socket that nobody holds", dangling_socket, "SocketExceeds", "/run/x that no process holds"),
    Rule("thread of another container", regular("/proc/4711/task/4712/environ"), "FileExceeds", "CAP_SYS_PTRACE"),
    Rule(
        "score of another container",
        regular("/proc/4711/oom_score_adj", flags=os.O_WRONLY),
        "FileExceeds",
        "CAP_SYS_PTRACE",
    ),
    Rule(
        "memory of another container, where another process is made again",
        of_ended(99, "/proc/4711/mem"),
        "FileExceeds",
        "/proc/4711/mem open, of a process that is not its own",
    ),
    Rule("file of no kind", regular("/tmp/x", mode=None), "FileExceeds", "does not say what kind of file /tmp/x is"),
    Rule(
        "link that CRIU made for the time of the dump",
        regular("/tmp/link_remap.9", mode=None),
        "FileExceeds",
        "option link-remap and needs /tmp/link_remap.9",
    ),
    Rule("another name of a deleted file", linked_by("/data/x"), "FileExceeds", "by another name"),
    Rule(
        "directory below what is covered later",
        open_below_uncovered,
        "ProtectedPathOpen",
        "the directory /proc/sys/net open",
        granted=Security(privileged=True),
    ),
    # namespaces
    Rule("the node's processes", ids(1, pid_ns_id=1), "NamespacesDiffer", "a pid namespace of its own"),
    Rule(
        "the node's network",
        everybody(net_ns_id=2),
        "NamespacesDiffer",
        "a network namespace of its own",
        granted=Security(host_network=True),
    ),
    Rule("the node's ipc", ids(1, ipc_ns_id=3), "NamespacesDiffer", "ipc namespace"),
    Rule("the node's mounts", ids(1, mnt_ns_id=6), "NamespacesDiffer", "mount namespace"),
    Rule(
        "users",
        everybody(user_ns_id=70),
        "NamespacesDiffer",
        "hostUsers",
    ),
    Rule(
        "nested",
        lambda dump: dump.nest_mounts(2),
        "NestedNamespaces",
        "CAP_SYS_ADMIN",
        granted=Security(add=("CAP_SYS_ADMIN",)),
    ),
)


def dumped(rule: Rule, security: Security) -> SyntheticDump:
    made = synthetic_dump(security)
    if rule.name == "the node's mounts":
        made.nest_mounts(2, 6)
        made.ids(2).mnt_ns_id = 13
    return made


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_images_that_hold_more_than_the_pod_grants_are_refused(rule: Rule) -> None:
    live = replace(spec(rule.pod), **rule.live)
    made = dumped(rule, rule.pod)
    label = (live.apparmor_profile or live.selinux_label).encode()
    for pid in (1, 2):
        made.core(pid).thread_core.creds.lsm_profile = label
        for each in made.core(pid).tc.rlimits.rlimits:
            each.cur = each.max = 1
    check_dump(read(made), live, live, PodIdentity())  # sound before the change
    rule.change(made)
    with pytest.raises(Refused) as refusal:
        check_dump(read(made), live, live, PodIdentity())
    assert refusal.value.reason == rule.reason
    assert rule.says in refusal.value.sentence
    assert len(refusal.value.sentence) < 400


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.granted], ids=lambda rule: rule.name)
def test_the_same_images_restore_in_a_pod_that_grants_it(rule: Rule) -> None:
    assert rule.granted
    made = dumped(rule, rule.pod)
    if rule.granted.privileged:
        made = dumped(rule, rule.granted)
    rule.change(made)
    live = spec(rule.granted)
    check_dump(read(made), live, live, PodIdentity())


@pytest.mark.parametrize(
    "change",
    [
        thread(1, secbits=1 << 4),  # keep capabilities: anybody may set it
        thread(1, cap_prm=words(0), cap_eff=words(0), cap_bnd=words(0)),
        thread(1, groups=[]),
        regular("/etc/hostname", flags=os.O_RDWR),
        regular("/proc/meminfo"),
        regular("/proc/sys/kernel/osrelease"),
        regular("/dev/urandom", mode=stat.S_IFCHR | 0o666),
        regular("/dev/pts/0", mode=stat.S_IFCHR | 0o620, flags=os.O_RDWR),
        opened(5, usk=pb.UnixSkEntry(id=77, ino=5, type=1)),
        opened(6),
        opened(6, efd=pb.EventfdFileEntry(fown=pb.FownEntry(pid=0, uid=0, euid=0))),
        opened(17, tfd=pb.TimerfdEntry(clockid=1)),
        timer(1),
        opened(13, nlsk=pb.NetlinkSkEntry(id=77, protocol=0, groups=[0x11])),
        opened(13, nlsk=pb.NetlinkSkEntry(id=77, protocol=12, groups=[0])),
        opened(5, usk=pb.UnixSkEntry(id=77, ino=5, type=1, opts=pb.SkOptsEntry(so_sndbuf=8 << 20, so_priority=6))),
        regular("/proc/2/mem", flags=os.O_RDWR),
        regular("/proc/self/environ"),
        regular("/proc/4711/stat"),
        of_ended(4711, "/proc/4711/maps"),
        of_ended(4711, "/proc/4711/comm", flags=os.O_RDWR),
        file_of_a_thread,
        regular("/proc/sys/net", mode=stat.S_IFDIR | 0o555),
        opened(4, isk=pb.InetSkEntry(id=77, family=2, type=1, proto=6, state=10, src_addr=[0], dst_addr=[0])),
        ghost(stat.S_IFREG | 0o600, 0),
        ghost(stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    ],
)
@pytest.mark.parametrize("pod", [Security(), Security(drop=("ALL",), no_new_privileges=True, seccomp=True), MKNOD])
def test_what_any_container_may_do_is_not_refused(change: Change, pod: Security) -> None:
    made = synthetic_dump(pod)
    change(made)
    check_dump(read(made), spec(pod), spec(pod), PodIdentity())


@pytest.mark.parametrize("policy", [0x40000000, 0x40000003])
def test_policy_that_children_do_not_inherit_takes_no_right(policy: int) -> None:
    made = synthetic_dump(Security())
    made.core(1).thread_core.sched_policy = policy
    check_dump(read(made), spec(Security()), spec(Security()), PodIdentity())


def threads_of_a_filter(flags: int) -> SyntheticDump:
    """A process with a filter, and a thread of it that CRIU wrote none of."""
    made = synthetic_dump(Security(seccomp=True), 1)
    made.images["pstree.img"][0].threads.append(7)  # type: ignore[attr-defined]
    made.images["core-7.img"] = [core_of_thread()]
    made.core(7).thread_core.creds.CopyFrom(made.core(1).thread_core.creds)
    made.images["seccomp.img"][0].seccomp_filters[0].flags = flags  # type: ignore[attr-defined]
    return made


def test_threads_that_get_the_filter_of_their_process_are_confined() -> None:
    live = spec(Security(seccomp=True))
    check_dump(read(threads_of_a_filter(1)), live, live, PodIdentity())


def test_threads_that_get_no_filter_are_refused() -> None:
    live = spec(Security(seccomp=True))
    with pytest.raises(Refused) as refused:
        check_dump(read(threads_of_a_filter(0)), live, live, PodIdentity())
    assert refused.value.reason == "SeccompLost"


def test_mounts_are_shared_where_the_pod_mounts_something_bidirectionally() -> None:
    """The runtime makes the container's root shared for that, and all mounts in it with it."""
    made = synthetic_dump(Security())
    entry("/etc/hosts", shared_id=3)(made)
    live = replace(spec(Security()), rootfs_propagation="rshared")
    check_dump(read(made), live, live, PodIdentity())


def test_mount_follows_the_nodes_where_the_pod_says_nothing_else() -> None:
    """CRI-O's own bind mounts name no propagation, and runc makes them slaves of what they show."""
    made = synthetic_dump(Security())
    entry("/etc/hosts", master_id=3)(made)
    hosts, *others = sorted(spec(Security()).mounts, key=lambda mount: mount.destination != "/etc/hosts")
    live = replace(spec(Security()), mounts=(replace(hosts, options=("bind", "ro")), *others))
    check_dump(read(made), live, live, PodIdentity())


def test_masked_file_may_be_named_as_crun_does() -> None:
    made = synthetic_dump(Security())
    entry("/proc/keys", ext_key=b"/proc/keys")(made)
    regular("/proc/keys", mode=stat.S_IFCHR | 0o666, mount=made.mount("/proc/keys").mnt_id)(made)
    check_dump(read(made), spec(Security()), spec(Security()), PodIdentity())


def test_masked_file_that_was_opened_through_its_mask_is_not_refused() -> None:
    made = synthetic_dump(Security())
    mask = made.mount("/proc/keys").mnt_id
    regular("/proc/keys", mode=stat.S_IFCHR | 0o666, mount=mask)(made)
    check_dump(read(made), spec(Security()), spec(Security()), PodIdentity())


def test_paths_masked_where_it_was_dumped_and_not_here_are_no_difference() -> None:
    """A newer kernel or engine masks more."""
    pod = Security()
    live = replace(spec(pod), masked_paths=(), readonly_paths=("/proc/sys",))
    made = synthetic_dump(pod)
    gone = [made.mount(path) for path in ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger")]
    made.images["mountpoints-13.img"] = [each for each in made.images["mountpoints-13.img"] if each not in gone]
    check_dump(read(made), live, live, PodIdentity())


def test_device_nodes_in_a_tmpfs_are_those_of_the_runtime_and_of_the_pod() -> None:
    null = SpecialFile("/dev/null", "character device", 1, 3, 0o666, 0, 0, capabilities=False)
    card = SpecialFile("/dev/accel0", "character device", 261, 0, 0o660, 0, 0, capabilities=False)
    disk = SpecialFile("/dev/vda", "block device", 254, 0, 0o660, 0, 0, capabilities=False)
    dump, live = read(synthetic_dump(MKNOD)), spec(MKNOD)
    check_dump(dump, live, live, PodIdentity(), [null])
    for node, says in ((card, "/dev/accel0 a character device 261:0"), (disk, "/dev/vda a block device 254:0")):
        with pytest.raises(Refused) as refusal:
            check_dump(dump, live, live, PodIdentity(), [null, node])
        assert refusal.value.reason == "DeviceExceeds"
        assert says in refusal.value.sentence
    given = replace(live, devices=(Device("/dev/accel0", "c", 261, 0, None, None, None),))
    check_dump(dump, given, given, PodIdentity(), [null, card])
    with pytest.raises(Refused):
        check_dump(dump, given, given, PodIdentity(), [replace(card, kind="block device")])
    check_dump(read(synthetic_dump(Security())), spec(Security()), spec(Security()), PodIdentity(), [disk])


@pytest.mark.parametrize("path", ["/dev/null", "/dev//null", "/dev/accel0"])
def test_node_in_place_of_a_device_is_that_device_whatever_nodes_the_container_may_make(path: str) -> None:
    """CRIU may open it while no device cgroup keeps it from that: crun moves the processes there afterwards."""
    live = replace(spec(Security()), devices=(Device("/dev/accel0", "c", 261, 0, None, None, None),))
    disk = SpecialFile(path, "block device", 8, 0, 0o666, 0, 0, capabilities=False)
    made = synthetic_dump(Security())
    regular("/dev/null", mode=stat.S_IFBLK | 0o666, mount=made.mount("/dev").mnt_id)(made)
    with pytest.raises(Refused, match="a block device 8:0") as refusal:
        check_dump(read(made), live, live, PodIdentity(), [disk])
    assert refusal.value.reason == "DeviceExceeds"


def test_deleted_device_that_is_open_is_the_containers_whatever_nodes_it_may_make() -> None:
    made = synthetic_dump(Security())
    ghost(stat.S_IFBLK | 0o600, os.makedev(8, 0))(made)
    with pytest.raises(Refused, match="a deleted file a block device 8:0"):
        check_dump(read(made), spec(Security()), spec(Security()), PodIdentity())


def test_network_named_by_a_path_is_the_pods_unless_it_is_the_nodes() -> None:
    """containerd names a hostNetwork pod's namespace by path too."""
    dump = read(synthetic_dump(Security(host_network=True)))
    live = spec(Security(host_network=True))
    assert not list(namespace_refusals(dump, live))
    assert not list(namespace_refusals(dump, live, shared=lambda namespace: namespace.type == "network"))
    assert list(namespace_refusals(dump, live, shared=lambda namespace: False))
    assert list(namespace_refusals(dump, replace(live, namespaces=(Namespace("network", "/proc/1/nothing"),))))


def test_clocks_that_a_restore_gave_the_container_do_not_keep_it_from_being_restored_again() -> None:
    made = synthetic_dump(Security())
    for pid in (1, 2):
        made.ids(pid).time_ns_id = 55
    assert not list(namespace_refusals(read(made), spec(Security())))
