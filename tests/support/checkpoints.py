"""Makes small checkpoints of any engine that the readers accept, for tests to use whole or to spoil.

``containerd()``, ``crio()`` and ``podman()`` give the files by name; ``tar_of`` and ``write_directory`` put them where
a reader finds them; ``SyntheticDump`` holds the CRIU images as messages, so a test changes one field and goes on::

    dump = SyntheticDump.of_processes(2)
    dump.core(2).thread_core.creds.uid = 1000
    path.write_bytes(tar_of(containerd(dump)))

Layouts: containerd internal/cri/server/container_checkpoint_linux.go, CRI-O internal/lib/checkpoint.go, Podman
libpod/container_internal_common.go; images: checkpoint-restore/criu images/*.proto.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import zstandard
from google.protobuf.message import Message

from shared.compression import Compression
from shared.criu import criu_pb2
from shared.criu.images import Kind, header, join

PAGE = 4096
DEFAULT_CAPABILITIES = 0xA80425FB
"""What containerd and CRI-O give an unprivileged container."""
BASE_DIGEST = "sha256:" + "b" * 64
BASE_REFERENCE = f"registry.example/app@{BASE_DIGEST}"
CONTAINER_ID = "c" * 64
POD_UID = "50d85d8c-3b60-4910-ae8e-0b9fcfad6022"
_INFINITY = (1 << 64) - 1
_Message = TypeVar("_Message", bound=Message)


@dataclass
class SyntheticDump:
    """CRIU images of a tree: task 1 the root, the others its children; each with ``pages`` pages of memory."""

    images: dict[str, list[Message]] = field(default_factory=dict)
    raw: dict[str, bytes] = field(default_factory=dict)
    """Files that are not messages behind a magic number: pages, descriptors.json, tmpfs archives."""

    @classmethod
    def of_processes(cls, count: int = 1, *, pages: int = 2) -> SyntheticDump:
        dump = cls()
        dump._global_images()
        for pid in range(1, count + 1):
            dump._task(pid, pages)
        return dump

    def core(self, tid: int) -> criu_pb2.CoreEntry:
        return cast(criu_pb2.CoreEntry, self.images[f"core-{tid}.img"][0])

    def ids(self, pid: int) -> criu_pb2.TaskKobjIdsEntry:
        return cast(criu_pb2.TaskKobjIdsEntry, self.images[f"ids-{pid}.img"][0])

    def inventory(self) -> criu_pb2.InventoryEntry:
        return cast(criu_pb2.InventoryEntry, self.images["inventory.img"][0])

    def mount(self, mountpoint: str) -> criu_pb2.MntEntry:
        mounts = cast(list[criu_pb2.MntEntry], self.images["mountpoints-13.img"])
        return next(mount for mount in mounts if mount.mountpoint == mountpoint.encode())

    def mount_of(self, path: str) -> criu_pb2.MntEntry:
        """The innermost mount there."""
        mounts = cast(list[criu_pb2.MntEntry], self.images["mountpoints-13.img"])
        return innermost(mounts, path)

    def add_file(self, entry: criu_pb2.FileEntry, *, descriptor: int, table: int = 1) -> None:
        """Opens one more file in a task's descriptor table."""
        self.images["files.img"].append(entry)
        self.images[f"fdinfo-{table}.img"].append(
            criu_pb2.FdinfoEntry(id=entry.id, flags=0, type=entry.type, fd=descriptor)
        )

    def add_mount(self, mountpoint: str, /, **fields: Any) -> None:
        """One more mount below the root; ``fields`` of mnt_entry win over the ones of a bind mount of the node."""
        mounts = cast(list[criu_pb2.MntEntry], self.images["mountpoints-13.img"])
        number = 200 + len(mounts)
        values: dict[str, Any] = {
            "parent_mnt_id": innermost(mounts, mountpoint).mnt_id,
            "fstype": 0,
            "root": b"/var/lib/node" + mountpoint.encode(),
            "source": b"/dev/vda",
            "ext_key": mountpoint.encode(),
        }
        self.images["mountpoints-13.img"].append(_mount(number, mountpoint, **(values | fields)))

    def nest_mounts(self, pid: int, namespace: int = 14) -> None:
        """Puts a task into a mount namespace of its own, with copies of all mounts, as unshare(1) makes it."""
        self.ids(pid).mnt_ns_id = namespace
        copies: list[Message] = []
        for entry in cast(list[criu_pb2.MntEntry], self.images["mountpoints-13.img"]):
            copied = criu_pb2.MntEntry()
            copied.CopyFrom(entry)
            copied.mnt_id += 1000
            copied.parent_mnt_id += 1000
            copied.ClearField("ext_key")
            copies.append(copied)
        self.images[f"mountpoints-{namespace}.img"] = copies

    def files(self, directory: str = "checkpoint") -> dict[str, bytes]:
        """The images' bytes by name, in the order an engine writes them."""
        found = {name: serialize(name, messages) for name, messages in self.images.items()} | self.raw
        return {f"{directory}/{name}" if directory else name: found[name] for name in sorted(found)}

    def _global_images(self) -> None:
        pb = criu_pb2
        own = pb.TaskKobjIdsEntry(
            vm_id=1,
            files_id=999,
            fs_id=1,
            sighand_id=1,
            pid_ns_id=1,
            net_ns_id=2,
            ipc_ns_id=3,
            uts_ns_id=4,
            mnt_ns_id=6,
            user_ns_id=7,
            cgroup_ns_id=8,
            time_ns_id=5,
        )
        self.images["inventory.img"] = [
            pb.InventoryEntry(
                img_version=2,
                fdinfo_per_id=True,
                root_ids=own,
                ns_per_id=True,
                root_cg_set=1,
                lsmtype=0,
                network_lock_method=0,
                plugins_entry=pb.PluginsEntry(),
                dump_criu_run_id=b"a1743d75-31f4-4d62-b804-27a559000a97",
            )
        ]
        self.images["pstree.img"] = []
        self.images["files.img"] = [
            _regular(1, "/bin/app", 0o100755),
            _regular(2, "/dev/null", 0o020666, mount=150),
            pb.FileEntry(type=2, id=3, pipe=pb.PipeEntry(id=3, pipe_id=31, flags=1)),
            pb.FileEntry(type=2, id=4, pipe=pb.PipeEntry(id=4, pipe_id=41, flags=1)),
            _regular(5, "/", 0o040755),
        ]
        self.images["mountpoints-13.img"] = [
            _mount(153, "/sys", fstype=2, source=b"sysfs", parent_mnt_id=147, flags=15, sb_flags=1),
            _mount(151, "/dev/pts", fstype=6, source=b"devpts", parent_mnt_id=150, flags=10),
            _mount(150, "/dev", fstype=5, source=b"tmpfs", root_dev=65, flags=2, options=b"size=65536k,mode=755"),
            _mount(149, "/proc", fstype=1, source=b"proc", flags=14),
            _mount(147, "/", fstype=17, source=b"overlay", parent_mnt_id=111),
        ]
        self.images["utsns-12.img"] = [pb.UtsnsEntry(nodename=b"app-pod", domainname=b"(none)")]
        self.images["ipcns-var-11.img"] = [
            pb.IpcVarEntry(sem_ctls=[32000, 1024000000, 500, 32000], msg_ctlmax=8192, shm_ctlmax=_INFINITY)
        ]
        self.images["netns-10.img"] = [pb.NetnsEntry(ext_key=b"extRootNetNS")]
        self.images["seccomp.img"] = [pb.SeccompEntry()]
        self.raw["cgroup.img"] = header("cgroup.img")
        self.raw["tmpfs-dev-65.tar.gz.img"] = gzip.compress(
            tar_of_members([member("./", kind=tarfile.DIRTYPE)]), mtime=0
        )
        self.raw["descriptors.json"] = b'["/dev/null","pipe:[31]","pipe:[41]"]'

    def _task(self, pid: int, pages: int) -> None:
        pb = criu_pb2
        self.images["pstree.img"].append(
            pb.PstreeEntry(pid=pid, ppid=0 if pid == 1 else 1, pgid=1, sid=1, threads=[pid])
        )
        self.images[f"core-{pid}.img"] = [core_of_task()]
        self.images[f"ids-{pid}.img"] = [
            pb.TaskKobjIdsEntry(
                vm_id=pid + 1,
                files_id=pid,
                fs_id=pid + 1,
                sighand_id=pid + 1,
                pid_ns_id=9,
                net_ns_id=10,
                ipc_ns_id=11,
                uts_ns_id=12,
                mnt_ns_id=13,
                user_ns_id=7,
                cgroup_ns_id=8,
                time_ns_id=5,
            )
        ]
        self.images[f"fs-{pid}.img"] = [pb.FsEntry(cwd_id=5, root_id=5, umask=0o22)]
        self.images[f"fdinfo-{pid}.img"] = [
            pb.FdinfoEntry(id=2, flags=0, type=1, fd=0),
            pb.FdinfoEntry(id=3, flags=0, type=2, fd=1),
            pb.FdinfoEntry(id=4, flags=0, type=2, fd=2),
        ]
        area = pb.VmaEntry(
            start=0x400000, end=0x400000 + pages * PAGE, pgoff=0, shmid=0, prot=3, flags=34, status=513, fd=-1
        )
        self.images[f"mm-{pid}.img"] = [pb.MmEntry(mm_start_code=0x400000, exe_file_id=1, vmas=[area])]
        self.images[f"pagemap-{pid}.img"] = [
            pb.PagemapHead(pages_id=pid),
            pb.PagemapEntry(vaddr=0x400000, compat_nr_pages=0, flags=4, nr_pages=pages),
        ]
        self.raw[f"pages-{pid}.img"] = bytes([pid % 251 + 1]) * (pages * PAGE)


def innermost(mounts: Sequence[criu_pb2.MntEntry], path: str) -> criu_pb2.MntEntry:
    """The mount that shows ``path``, or would if it were not masked."""
    bare = [each for each in mounts if each.ext_key != b"/dev/null"]
    above = [each for each in bare if f"{path}/".startswith(each.mountpoint.decode().rstrip("/") + "/")]
    return max(above, key=lambda each: len(each.mountpoint), default=mounts[0])


def core_of_task() -> criu_pb2.CoreEntry:
    """An x86-64 process that is alive, root with an ordinary container's capabilities, nothing else."""
    pb = criu_pb2
    mask = [DEFAULT_CAPABILITIES, 0]
    creds = pb.CredsEntry(
        uid=0,
        gid=0,
        euid=0,
        egid=0,
        suid=0,
        sgid=0,
        fsuid=0,
        fsgid=0,
        secbits=0,
        groups=[0],
        cap_inh=[0, 0],
        cap_amb=[0, 0],
        cap_prm=mask,
        cap_eff=mask,
        cap_bnd=mask,
    )
    limits = pb.TaskRlimitsEntry(rlimits=[pb.RlimitEntry(cur=_INFINITY, max=_INFINITY) for _ in range(16)])
    return pb.CoreEntry(
        mtype=1,
        thread_info=registers(),
        tc=pb.TaskCoreEntry(
            task_state=1,
            exit_code=0,
            personality=0,
            comm=b"app",
            rlimits=limits,
            oom_score_adj=0,
            timers=pb.TaskTimersEntry(),
            signals_s=pb.SignalQueueEntry(),
            sigactions=[pb.SaEntry() for _ in range(62)],
        ),
        thread_core=pb.ThreadCoreEntry(
            sched_nice=0, sched_policy=0, creds=creds, comm=b"app", cg_set=2, signals_p=pb.SignalQueueEntry()
        ),
    )


def core_of_thread() -> criu_pb2.CoreEntry:
    """One more thread of ``core_of_task()``."""
    core = core_of_task()
    core.ClearField("tc")
    return core


def registers() -> criu_pb2.ThreadInfoX86:
    """Registers of a processor without extensions, all zero."""
    return criu_pb2.ThreadInfoX86(fpregs=criu_pb2.UserX86FpregsEntry(st_space=[0] * 32, xmm_space=[0] * 64))


def set_aarch64(dump: SyntheticDump, pid: int = 1) -> None:
    """Makes the task one of a 64-bit Arm machine."""
    core = dump.core(pid)
    core.mtype = 3
    core.ClearField("thread_info")
    core.ti_aarch64.gpregs.regs.extend([0] * 31)
    core.ti_aarch64.fpsimd.vregs.extend([0] * 64)


def serialize(name: str, messages: Iterable[Message]) -> bytes:
    """The image file of this name with these messages."""
    stem = name.removesuffix(".img")
    for kind in Kind:
        start, numbered, _ = kind.value.removesuffix(".img").partition("%")
        if stem == start or (numbered and stem.startswith(start) and "-" not in stem[len(start) :]):
            return join(kind, [completed(message) for message in messages])
    raise KeyError(name)


def completed(message: _Message) -> _Message:
    """The message with the required fields that a test does not care for."""
    made = type(message)()
    made.CopyFrom(message)
    _complete(made)
    return made


def _complete(message: Message) -> None:
    for each in message.DESCRIPTOR.fields:
        if each.is_repeated:
            parts = list(getattr(message, each.name)) if each.message_type else []
        elif each.is_required and not message.HasField(each.name):
            if each.message_type:
                getattr(message, each.name).SetInParent()
                parts = [getattr(message, each.name)]
            else:
                setattr(message, each.name, each.default_value)
                parts = []
        else:
            parts = [getattr(message, each.name)] if each.message_type and message.HasField(each.name) else []
        for part in parts:
            _complete(part)


def runtime_spec(**changes: Any) -> dict[str, Any]:
    """The runtime spec of an ordinary container; ``changes`` replace top-level keys."""
    capabilities = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    spec: dict[str, Any] = {
        "ociVersion": "1.2.1",
        "process": {
            "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
            "args": ["/bin/app", "--serve"],
            "env": ["PATH=/bin", "HOSTNAME=app-pod"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}],
            "oomScoreAdj": 1000,
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/etc/hosts", "type": "bind", "source": "/node/hosts", "options": ["rbind", "rw"]},
        ],
        "annotations": {},
        "linux": {
            "cgroupsPath": "/kubepods/pod1/c1",
            "namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/668/ns/net"}, {"type": "mount"}],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    }
    return spec | changes


def config_dump(**changes: Any) -> dict[str, Any]:
    """config.dump as containerd writes it."""
    return {
        "id": CONTAINER_ID,
        "name": f"app_app-pod_shop_{POD_UID}_0",
        "rootfsImage": "registry.example/app:1",
        "rootfsImageRef": BASE_REFERENCE,
        "rootfsImageName": "registry.example/app:1",
        "runtime": "io.containerd.runc.v2",
        "createdTime": "2026-11-24T03:24:10.685814584Z",
        "checkpointedTime": "2026-11-24T03:24:13.861955649Z",
        "restoredTime": "0001-01-01T00:00:00Z",
        "restored": False,
    } | changes


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def rootfs_diff(files: Mapping[str, bytes] | None = None) -> bytes:
    """A layer's tar with these files, one by default."""
    return tar_of(files if files is not None else {"root/count": b"5\n"})


def containerd(
    dump: SyntheticDump | None = None, *, spec: dict[str, Any] | None = None, config: dict[str, Any] | None = None
) -> dict[str, bytes]:
    """A CRI checkpoint of containerd 2: gzipped diff with whiteouts, log in CRI format, status.dump."""
    notes = {
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": "app",
        "io.kubernetes.cri.sandbox-name": "app-pod",
        "io.kubernetes.cri.sandbox-namespace": "shop",
        "io.kubernetes.cri.sandbox-uid": POD_UID,
    }
    labels = {
        "io.kubernetes.container.name": "app",
        "io.kubernetes.pod.name": "app-pod",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": POD_UID,
    }
    status = {"id": CONTAINER_ID, "metadata": {"name": "app"}, "state": 1, "labels": labels}
    return {
        **(dump or SyntheticDump.of_processes()).files(),
        "config.dump": _json(config if config is not None else config_dump()),
        "container.log": b"2026-11-24T03:24:10.748166232Z stdout F 1\n",
        "dump.log": b"(00.000000) CRIU run id = a\n(00.000132) Version: 4.2.1 (gitid 0)\n",
        "rootfs-diff.tar": gzip.compress(rootfs_diff({"root/count": b"5\n", "etc/.wh.motd": b""}), mtime=0),
        "spec.dump": _json(spec if spec is not None else runtime_spec(annotations=notes)),
        "status": _json({"Version": "v1", "Pid": 1}),
        "status.dump": _json(status),
    }


def crio(dump: SyntheticDump | None = None) -> dict[str, bytes]:
    """A CRI checkpoint of CRI-O: plain diff, deleted.files, image id instead of a reference, no status.dump."""
    labels = {
        "io.kubernetes.container.name": "app",
        "io.kubernetes.pod.name": "app-pod",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": POD_UID,
    }
    notes = {
        "io.container.manager": "cri-o",
        "io.kubernetes.cri-o.Annotations": json.dumps({"io.kubernetes.container.restartCount": "0"}),
        "io.kubernetes.cri-o.ContainerID": CONTAINER_ID,
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.Image": "d" * 64,
        "io.kubernetes.cri-o.ImageName": "registry.example/app:1",
        "io.kubernetes.cri-o.ImageRef": "d" * 64,
        "io.kubernetes.cri-o.IP.0": "10.88.0.9",
        "io.kubernetes.cri-o.Labels": json.dumps(labels),
        "io.kubernetes.cri-o.LogPath": f"/var/log/pods/shop_app-pod_{POD_UID}/app/0.log",
        "io.kubernetes.cri-o.Metadata": json.dumps({"name": "app"}),
        "io.kubernetes.cri-o.Name": f"k8s_app_app-pod_shop_{POD_UID}_0",
        "io.kubernetes.cri-o.SandboxID": "5" * 64,
        "io.kubernetes.cri-o.SandboxName": f"k8s_POD_app-pod_shop_{POD_UID}_0",
    }
    hosts = {"source": "/node/hosts", "destination": "/etc/hosts", "file_type": "file", "permissions": 0o644}
    return {
        "stats-dump": b"",
        "dump.log": b"(00.000119) Version: 3.19 (gitid 0)\n",
        **(dump or SyntheticDump.of_processes()).files(),
        "config.dump": _json(config_dump(rootfsImageRef="d" * 64, runtime="runc")),
        "spec.dump": _json(runtime_spec(annotations=notes)),
        "bind.mounts": _json([hosts]),
        "rootfs-diff.tar": rootfs_diff(),
        "deleted.files": _json(["/etc/motd"]),
        "io.kubernetes.cri-o.LogPath": b"2026-11-24T03:24:10.748166232Z stdout F 1\n",
    }


def podman(dump: SyntheticDump | None = None) -> dict[str, bytes]:
    """``podman container checkpoint --export``: its whole libpod config, no pod of Kubernetes."""
    config = config_dump(name="web", rootfsImageRef=None, runtime="crun") | {"rootfsImageID": "e" * 64, "spec": {}}
    return {
        "artifacts": b"",
        **(dump or SyntheticDump.of_processes()).files(),
        "config.dump": _json(config),
        "ctr.log": b"2026-11-24T03:24:10.748166232+00:00 stdout F 1\n",
        "deleted.files": _json(["/etc/motd"]),
        "network.status": _json({"podman": {"interfaces": {}}}),
        "rootfs-diff.tar": rootfs_diff(),
        "spec.dump": _json(runtime_spec(annotations={"io.container.manager": "libpod"})),
    }


def tar_of(files: Mapping[str, bytes], compression: Compression = Compression.NONE) -> bytes:
    """An archive with these files and the folders they need, as containerd's PAX tar."""
    return compress(tar_of_members(_with_folders(files)), compression)


def compress(content: bytes, compression: Compression) -> bytes:
    if compression is Compression.GZIP:
        return gzip.compress(content, mtime=0)
    if compression is Compression.ZSTD:
        return zstandard.ZstdCompressor(write_checksum=True).compress(content)
    return content


Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> Member:
    """One member of ``tar_of_members``; ``fields`` of tarfile.TarInfo."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.type = kind
    entry.mode = 0o755 if kind == tarfile.DIRTYPE else 0o600
    for key, value in fields.items():
        setattr(entry, key, value)
    return entry, content


def tar_of_members(members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """The archive of these members, ended by two zero blocks as Go's archive/tar does."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for entry, content in members:
            archive.addfile(entry, io.BytesIO(content))
        end = archive.offset
    return out.getvalue()[: end + 1024]


def _with_folders(files: Mapping[str, bytes]) -> Iterable[tuple[tarfile.TarInfo, bytes]]:
    made: set[str] = set()
    for name, content in files.items():
        folder = name.rpartition("/")[0]
        if folder and folder not in made:
            made.add(folder)
            yield member(f"{folder}/", kind=tarfile.DIRTYPE)
        yield member(name, content)


def write_directory(path: Path, files: Mapping[str, bytes]) -> Path:
    """The checkpoint unpacked below ``path``."""
    for name, content in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return path


def _regular(number: int, path: str, mode: int, *, mount: int = 147) -> criu_pb2.FileEntry:
    reg = criu_pb2.RegFileEntry(id=number, flags=0, name=path.encode(), mnt_id=mount, mode=mode)
    return criu_pb2.FileEntry(type=1, id=number, reg=reg)


def _mount(number: int, mountpoint: str, /, **fields: Any) -> criu_pb2.MntEntry:
    values: dict[str, Any] = {
        "fstype": 0,
        "mnt_id": number,
        "root_dev": number,
        "parent_mnt_id": 147,
        "flags": 1 << 21,
        "root": b"/",
        "mountpoint": mountpoint.encode(),
        "source": b"none",
        "options": b"",
        "shared_id": 0,
        "master_id": 0,
        "sb_flags": 0,
    }
    return criu_pb2.MntEntry(**(values | fields))
