"""A dump with something of everything that `inspect` and `check` show."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import cast

from shared.criu import criu_pb2 as pb
from shared.criu.capabilities import capability_names
from tests.support.checkpoints import DEFAULT_CAPABILITIES, PAGE, SyntheticDump, runtime_spec

STACK = 0x7FFC00000000
HEAP = 0x600000
LIBRARY = 0x7F0000000000
SEGMENT = 77


def rich_dump(commands: Sequence[bytes] = (b"/bin/app\0--serve\0", b"/bin/worker\0one\0")) -> SyntheticDump:
    """A tree of as many processes as ``commands``; the first has sockets, files and a lock."""
    dump = SyntheticDump.of_processes(len(commands), pages=2)
    for pid, command in enumerate(commands, 1):
        set_memory(dump, pid, command)
    dump.images[f"pagemap-shmem-{SEGMENT}.img"] = [
        pb.PagemapHead(pages_id=99),
        pb.PagemapEntry(vaddr=0, compat_nr_pages=0, flags=4, nr_pages=5),
    ]
    dump.raw["pages-99.img"] = bytes(5 * PAGE)
    dump.add_file(tcp(50, 10, ("0.0.0.0", 8080)), descriptor=3)
    dump.add_file(tcp(51, 1, ("10.0.0.5", 8080), ("10.0.9.77", 41_222)), descriptor=4)
    dump.add_file(unix(60, b"/run/app.sock\0", state=10), descriptor=5)
    dump.add_file(unix(61, b"\0abstract", peer=62), descriptor=6)
    dump.add_file(unix(62, b"", peer=61), descriptor=7)
    dump.add_file(pb.FileEntry(type=6, id=70, efd=pb.EventfdFileEntry(id=70)), descriptor=8)
    dump.add_file(regular(71, "/data/journal", mount=300), descriptor=9)
    dump.add_file(pb.FileEntry(type=18, id=72, memfd=pb.MemfdFileEntry(id=72, inode_id=5)), descriptor=10)
    dump.images["memfd.img"] = [pb.MemfdInodeEntry(name=b"scratch", size=PAGE, shmid=9, inode_id=5)]
    dump.images["pagemap-shmem-9.img"] = [pb.PagemapHead(pages_id=98)]
    dump.images["filelocks.img"] = [pb.FileLockEntry(flag=2, type=1, pid=1, fd=9)]
    dump.add_mount("/data", mnt_id=300)
    return dump


def set_memory(dump: SyntheticDump, pid: int, command: bytes) -> None:
    """Program, heap, shared memory and a stack that holds the command line."""
    mm = cast(pb.MmEntry, dump.images[f"mm-{pid}.img"][0])
    del mm.vmas[:]
    mm.vmas.extend(
        [
            area(0x400000, 8, 0x41, shmid=1, prot=5, flags=0x2),
            area(HEAP, 4, 0x221),
            area(LIBRARY, 64, 0x101, shmid=SEGMENT, flags=0x21),
            area(STACK, 32, 0x201, flags=0x122),
        ]
    )
    top = STACK + 31 * PAGE
    mm.mm_start_stack, mm.mm_arg_start, mm.mm_arg_end = top, top, top + len(command)
    dump.images[f"pagemap-{pid}.img"] = [
        pb.PagemapHead(pages_id=pid),
        pb.PagemapEntry(vaddr=HEAP, compat_nr_pages=0, flags=4, nr_pages=3),
        pb.PagemapEntry(vaddr=top, compat_nr_pages=0, flags=4, nr_pages=1),
    ]
    dump.raw[f"pages-{pid}.img"] = bytes(3 * PAGE) + command.ljust(PAGE, b"\0")


def area(start: int, pages: int, status: int, *, shmid: int = 0, prot: int = 3, flags: int = 0x22) -> pb.VmaEntry:
    return pb.VmaEntry(
        start=start, end=start + pages * PAGE, pgoff=0, shmid=shmid, prot=prot, flags=flags, status=status, fd=-1
    )


def tcp(number: int, state: int, local: tuple[str, int], remote: tuple[str, int] = ("0.0.0.0", 0)) -> pb.FileEntry:
    return internet(number, 6, 1, state, local, remote)


def internet(
    number: int, protocol: int, kind: int, state: int, local: tuple[str, int], remote: tuple[str, int]
) -> pb.FileEntry:
    socket = pb.InetSkEntry(
        id=number,
        ino=number,
        family=2,
        type=kind,
        proto=protocol,
        state=state,
        src_port=local[1],
        dst_port=remote[1],
        src_addr=[_word(local[0])],
        dst_addr=[_word(remote[0])],
    )
    return pb.FileEntry(type=4, id=number, isk=socket)


def unix(inode: int, name: bytes, *, state: int = 7, peer: int = 0) -> pb.FileEntry:
    socket = pb.UnixSkEntry(id=inode, ino=inode, type=1, state=state, peer=peer, name=name)
    return pb.FileEntry(type=5, id=inode, usk=socket)


def regular(
    number: int, path: str, *, mount: int = 147, mode: int = 0o100644, size: int | None = None, build_id: bytes = b""
) -> pb.FileEntry:
    reg = pb.RegFileEntry(id=number, flags=0, name=path.encode(), mnt_id=mount, mode=mode)
    if size is not None:
        reg.size = size
    reg.build_id.extend(word for (word,) in struct.iter_unpack("<I", build_id.ljust(-(-len(build_id) // 4) * 4, b"\0")))
    return pb.FileEntry(type=1, id=number, reg=reg)


def _word(address: str) -> int:
    (word,) = struct.unpack("<I", bytes(map(int, address.split("."))))
    return int(word)


def kubelet_spec(**process: object) -> dict[str, object]:
    """The runtime spec of an ordinary pod's container, as the images of SyntheticDump fit it."""
    capabilities = sorted(capability_names(DEFAULT_CAPABILITIES))
    spec = runtime_spec(annotations={"io.kubernetes.cri.container-name": "app"})
    spec["process"] |= {
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        "rlimits": [],
        "oomScoreAdj": 0,
        **process,
    }
    spec["mounts"] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": []},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "ro"]},
    ]
    kinds = ("ipc", "uts", "network")
    spec["linux"]["namespaces"] = [
        {"type": "pid"},
        {"type": "mount"},
        *({"type": kind, "path": f"/proc/668/ns/{kind}"} for kind in kinds),
    ]
    return spec
