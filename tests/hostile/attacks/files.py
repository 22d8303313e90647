"""Open files and sockets that the container could not have opened."""

from __future__ import annotations

import os
import socket
import stat
import tarfile
from typing import Any

from shared.criu import criu_pb2 as pb
from tests.hostile.attack import Change, add, attack, twin
from tests.hostile.forgery import Forgery
from tests.support.checkpoints import member

CHR, BLK = stat.S_IFCHR | 0o666, stat.S_IFBLK | 0o660


def _path(path: str, mode: int | None = 0o100644, flags: int = os.O_RDONLY, **more: Any) -> Change:
    return lambda forgery: forgery.open_path(path, mode, flags, **more) and None


def _linked(path: str, flags: int) -> Change:
    """Said to be on /proc, which a link in the container's own files leads to."""
    return lambda forgery: forgery.open_path(path, flags=flags, mnt_id=forgery.mount("/proc").mnt_id) and None


for _name in (
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/irq/0/smp_affinity",
    "/proc/bus/pci/devices",
    "/proc/fs/x",
):
    add(f"{_name} open for writing", "ProtectedPathOpen", _path(_name, flags=os.O_WRONLY))
    add(f"{_name} open for reading and writing", "ProtectedPathOpen", _path(_name, flags=os.O_RDWR))
for _name in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware/efi", "/proc/acpi/x"):
    add(f"{_name} open", "ProtectedPathOpen", _path(_name))
for _name, _mode in (
    ("/dev/mem", CHR),
    ("/dev/kmsg", CHR),
    ("/dev/sda", BLK),
    ("/dev/fuse", CHR),
    ("/tmp/disk", BLK),
    ("/dev/pts/../mem", CHR),
):
    add(f"{_name} open", "ImagePath" if ".." in _name else "DeviceExceeds", _path(_name, _mode, os.O_RDWR))
    if ".." not in _name:
        add(f"{_name} open, said to be nothing in particular", "FileExceeds", _path(_name, None, os.O_RDWR))
for _name, _flags in (("kcore", os.O_RDONLY), ("sys/kernel/core_pattern", os.O_WRONLY), ("self/fd", os.O_RDONLY)):
    add(f"/proc/{_name} by a link in the root", "FileExceeds", _linked(f"/a/{_name}", _flags))


def _linked_in_tmpfs(forgery: Forgery) -> None:
    forgery.tmpfs("/dev", [member("./a", kind=tarfile.SYMTYPE, linkname="/proc")])
    forgery.open_path("/dev/a/sys/kernel/core_pattern", flags=os.O_WRONLY)


for _flag in (os.O_CREAT, os.O_TRUNC):
    add(f"a file opened with the flag {_flag:#o}", "FieldExceeds", _path("/etc/passwd", flags=os.O_RDONLY | _flag))
add("/proc/sys/kernel/core_pattern by a link in a tmpfs", "FileExceeds", _linked_in_tmpfs)
add("a file of the node", "FieldExceeds", _path("/etc/shadow", ext=True))
add("a path upwards", "ImagePath", _path("/a/../../etc/shadow"))
add("a relative path", "ImagePath", _path("etc/shadow"))
add("the root of another process", "FileExceeds", _path("/proc/1/root/etc/shadow"))
for _name, _mode in (
    ("1/exe", 0o100755),
    ("self/exe", 0o100755),
    ("1/task/1/exe", 0o100755),
    ("1/cwd", 0o040755),
    ("1/root", 0o040755),
    ("1/fd/7", 0o100644),
    ("thread-self/ns/mnt", 0o100444),
):
    add(f"what CRIU itself has at /proc/{_name}", "FileExceeds", _path(f"/proc/{_name}", _mode))
for _name in (
    "/proc/kallsyms",
    "/proc/modules",
    "/proc/iomem",
    "/proc/1/pagemap",
    "/proc/1/task/1/stack",
    "/sys/module/ext4/sections/.text",
    "/sys/devices/pci0000:00/0000:00:00.0/config",
):
    add(f"{_name} open with the rights of CRIU", "FileExceeds", _path(_name, 0o100444))


def _kind(number: int, **parts: Any) -> Change:
    return lambda forgery: forgery.open_file(pb.FileEntry(type=number, id=2000, **parts))


add("a packet socket", "FileExceeds", _kind(10, psk=pb.PacketSockEntry(id=2000, type=3, protocol=3)), "restricted")
add("a tun device", "FieldExceeds", _kind(15, tunf=pb.TunfileEntry(id=2000, netdev=b"tun0")))
add("a BPF map", "FieldExceeds", _kind(19, bpf=pb.BpfmapFileEntry(map_type=1, max_entries=1)))
add("a fanotify watch", "FileExceeds", _kind(12, ffy=pb.FanotifyFileEntry()))
add("a file that only the caller of CRIU knows", "FieldExceeds", _kind(16, ext=pb.ExtFileEntry()))
for _number in (21, 99, 65535):
    add(f"a file of unknown kind {_number}", "ImageDamaged", _kind(_number))
add(
    "a handle on the node's network namespace",
    "FieldExceeds",
    lambda forgery: _namespace(forgery, forgery.inventory.root_ids.net_ns_id, 0x40000000),
)
add(
    "a handle on the node's mount namespace",
    "FieldExceeds",
    lambda forgery: _namespace(forgery, forgery.inventory.root_ids.mnt_ns_id, 0x00020000),
)
add("a handle on a namespace that nobody has", "FieldExceeds", lambda forgery: _namespace(forgery, 4711, 0x00020000))


def _namespace(forgery: Forgery, number: int, flag: int) -> None:
    forgery.open_file(pb.FileEntry(type=14, id=2000, nsf=pb.NsFileEntry(id=2000, ns_id=number, ns_cflag=flag)))


def _socket(kind: int, protocol: int, state: int, port: int, **opts: int) -> Change:
    def change(forgery: Forgery) -> None:
        isk = pb.InetSkEntry(
            id=2000,
            ino=4711,
            family=socket.AF_INET,
            type=kind,
            proto=protocol,
            state=state,
            src_port=port,
            dst_port=0,
            src_addr=[0],
            dst_addr=[0],
            opts=pb.SkOptsEntry(**opts),
        )
        forgery.open_file(pb.FileEntry(type=4, id=2000, isk=isk))

    return change


add("a raw socket", "FileExceeds", _socket(socket.SOCK_RAW, 1, 7, 0), "restricted")
add("a raw socket of every protocol", "FileExceeds", _socket(socket.SOCK_RAW, 255, 7, 0), "restricted")
for _port in (1, 22, 80, 443, 1023):
    add(f"listening on port {_port}", "SocketExceeds", _socket(1, 6, 10, _port), "restricted")
add("bound to port 53", "SocketExceeds", _socket(2, 17, 7, 53), "restricted")
add("a socket with a mark for the firewall", "SocketExceeds", _socket(2, 17, 7, 5353, so_mark=1))
add("a socket of a class that comes first", "SocketExceeds", _socket(2, 17, 7, 5353, so_priority=7))
add("a socket with a port above all ports", "ImageDamaged", _socket(1, 6, 10, 70_000))


def _terminal(kind: int, number: int, major: int, minor: int) -> Change:
    def change(forgery: Forgery) -> None:
        """``number``: the one that CRIU gives such a terminal (tty.c, gen_id)."""
        entry = forgery.open_path("/dev/tty", CHR, os.O_RDWR, mnt_id=forgery.mount("/dev").mnt_id, descriptor=76)
        info = pb.TtyInfoEntry(id=number, type=kind, rdev=os.makedev(major, minor))
        forgery.new_image("tty-info.img", info)
        forgery.open_file(pb.FileEntry(type=11, id=2000, tty=pb.TtyFileEntry(tty_info_id=number, regf_id=entry.id)))

    return change


add("the node's console", "FileExceeds", _terminal(2, 1002 << 1, 5, 1))
add("a virtual terminal of the node", "FileExceeds", _terminal(3, 1004 << 1, 4, 1))
add("a serial line of the node", "FileExceeds", _terminal(6, 1010 << 1, 188, 0))
add("a terminal that CRIU is handed", "ImageDamaged", _terminal(5, 1008 << 1, 136, 0))


@attack("a root directory of its own without the right to change it", "RootDirectoryDiffers", "restricted")
def _chroot(forgery: Forgery) -> None:
    entry = forgery.open_path("/tmp", 0o040755)
    forgery.opened[-1].reg.mode = 0o040755
    forgery.image("fs-1.img")[0].root_id = entry.id


@twin("a look at its own descriptors", proof="test -d /proc/1/fd/77 && ls /proc/1/fd/77/")
def _own_descriptors(forgery: Forgery) -> None:
    forgery.open_path("/proc/1/fd", 0o040500)


def _linked_program(forgery: Forgery) -> None:
    forgery.diff([member("link", kind=tarfile.SYMTYPE, linkname="/proc/self/exe")])
    forgery.open_path("/link", 0o100755)


add("CRIU's own program by a link in the root", "FileExceeds", _linked_program, by_node=True)


def _fifo_by_a_link(forgery: Forgery) -> None:
    """CRIU has its directory of images open, from which a link may lead upwards to all of the node."""
    upwards = "/proc/self/fd/126" + "/.." * 8
    forgery.diff([member("link", kind=tarfile.SYMTYPE, linkname=f"{upwards}/run/fifo")])
    file = forgery.open_path("/link", stat.S_IFIFO | 0o600, os.O_RDWR, pos=(1 << 64) - 1)
    fifo = pb.FifoEntry(id=3000, pipe_id=3000, regf_id=file.id)
    forgery.open_file(pb.FileEntry(type=3, id=3000, fifo=fifo), descriptor=78)


add("a FIFO of the node by a link in the root", "FileExceeds", _fifo_by_a_link, by_node=True)
add("a FIFO of the node by a link in the root, as a user", "FileExceeds", _fifo_by_a_link, "user", by_node=True)


@twin("one more ordinary file")
def _ordinary(forgery: Forgery) -> None:
    forgery.open_path(
        "/etc/passwd", 0o100644, size=len(b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home:/bin/sh\n")
    )
