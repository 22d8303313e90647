"""Reads everything that `inspect` shows from one checkpoint. Memory is read only where the command lines lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from kubectl_restore.inspect import facts
from kubectl_restore.inspect.losses import find_losses
from kubectl_restore.inspect.naming import (
    Named,
    endpoint,
    internet_state,
    name_files,
    protocol,
    unix_name,
    unix_state,
)
from kubectl_restore.inspect.volumes import volume_of
from shared.archive import KEPT_FILE_BYTES, CheckpointFiles, Compression
from shared.criu.capabilities import capability_names
from shared.criu.criu_pb2 import FileLockEntry
from shared.criu.dump import Dump, read_dump
from shared.criu.dump_host import read_dump_host
from shared.criu.images import DUMP_ENTRIES_MAX, ImageDirectory, Kind
from shared.criu.memory import KINDS, AddressSpace, read_address_space, read_memory, segment_bytes
from shared.criu.open_files import InternetSocket, UnixSocket
from shared.criu.tasks import Task, Thread
from shared.errors import CheckpointInvalid
from shared.metadata import INVENTORY, Checkpoint, read_checkpoint
from shared.spec import RuntimeSpec

COMMAND_BYTES_MAX: Final = 32 << 10
"""Of a command line; Linux takes more, nobody reads more."""
COMMANDS_BYTES_MAX: Final = 4 << 20
"""Of all command lines together."""
DECOMPRESSED_BYTES_MAX: Final = 4 << 30
"""Pages of a compressed archive are found by decompressing all before them: no more than this for command lines."""
OPEN_FILES_MAX: Final = DUMP_ENTRIES_MAX
"""Of all processes together; a table is one in the dump, and is listed for each process that shares it."""
_DEV_SHM: Final = "devshm-checkpoint.tar"
"""What /dev/shm held, by Podman alone; nothing but Podman puts it back."""
_EMPTY_TAR_BYTES: Final = 1536
"""The directory itself and the end of the archive."""
_SECCOMP: Final = {0: "disabled", 1: "strict", 2: "filter"}
_LOCK_KINDS: Final = {1: "posix", 2: "flock", 32: "lease", 128: "open file description"}


def gather(files: CheckpointFiles, name: str) -> facts.Inspection:
    """``name``: what the user called the checkpoint. Raises CheckpointInvalid for one that is not whole."""
    checkpoint = read_checkpoint(files)
    dump = read_dump(files)
    reader = _Reader(files, dump)
    processes = tuple(reader.process(task) for task in dump.tasks)
    sockets = reader.sockets()
    mounts = _mounts(dump, checkpoint.spec)
    locks = reader.locks()
    return facts.Inspection(
        archive=facts.Archive(
            name=name,
            compression=files.compression.value,
            files=len(files.names()),
            size_bytes=sum(files.size(member) for member in files.names()),
        ),
        engine=_engine(files, checkpoint, dump),
        container=_container(checkpoint, dump, checkpoint.checkpointed_at or files.written_at(INVENTORY)),
        processes=processes,
        memory=_total(process.memory for process in processes if process.memory),
        shared_segments=reader.segments(),
        sockets=sockets,
        mounts=mounts,
        namespaces=_namespaces(checkpoint.spec),
        file_locks=locks,
        root_changes=facts.RootChanges(
            diff_bytes=files.size(checkpoint.rootfs_diff) if checkpoint.rootfs_diff else None,
            deleted_paths=len(checkpoint.deleted_files),
        ),
        losses=find_losses(
            processes,
            sockets,
            mounts,
            locks,
            terminal=checkpoint.spec.terminal,
            shared_memory_filled=_DEV_SHM in files and files.size(_DEV_SHM) > _EMPTY_TAR_BYTES,
        ),
    )


class _Reader:
    """The dump's processes with what they hold."""

    def __init__(self, files: CheckpointFiles, dump: Dump) -> None:
        self._images = ImageDirectory(files, "checkpoint")
        self._dump = dump
        self._named = name_files(self._images, dump.files)
        self._paths = {file: named.name for (kind, file), named in self._named.items() if kind == "reg"}
        self._tables: dict[int, list[facts.OpenFile]] = {}
        for descriptor in dump.descriptors:
            named = self._named.get((descriptor.kind, descriptor.file), Named(descriptor.kind, "?"))
            self._tables.setdefault(descriptor.table, []).append(
                facts.OpenFile(descriptor.number, named.kind, named.name)
            )
        open_files = sum(len(self._tables.get(task.ids.files, ())) for task in dump.tasks if task.alive)
        if open_files > OPEN_FILES_MAX:
            raise CheckpointInvalid(
                "DumpTooLarge",
                f"the dump's processes have {open_files} files open together; {OPEN_FILES_MAX} can be shown",
            )
        self._unix = {file.inode: file for file in reversed(dump.files) if isinstance(file, UnixSocket)}
        self._commands_left = COMMANDS_BYTES_MAX
        compressed = files.compression is not Compression.NONE
        self._pass_bytes = sum(files.size(name) for name in files.names()) if compressed else 0
        self._passes_left = DECOMPRESSED_BYTES_MAX
        self._users: dict[int, list[int]] = {}

    def process(self, task: Task) -> facts.Process:
        space = read_address_space(self._images, task.pid) if task.alive else None
        command = self._command(space) if space else ()
        for number in sorted({area.segment for area in space.areas if area.segment is not None} if space else ()):
            self._users.setdefault(number, []).append(task.pid)
        return facts.Process(
            pid=task.pid,
            parent=task.ppid,
            session=task.sid,
            name=task.comm,
            command=command,
            command_known=bool(command),
            executable=self._paths.get(space.executable) if space else None,
            working_directory=self._paths.get(task.cwd_file) if task.alive else None,
            state=task.state,
            threads=len(task.threads),
            credentials=_credentials(task.threads[0]) if task.threads else None,
            memory=_memory(space) if space else None,
            areas=self._areas(space) if space else (),
            files=tuple(self._tables.get(task.ids.files, ())) if task.alive else (),
        )

    def segments(self) -> tuple[facts.SharedSegment, ...]:
        return tuple(
            facts.SharedSegment(number, segment_bytes(self._images, number), tuple(pids))
            for number, pids in sorted(self._users.items())
        )

    def sockets(self) -> tuple[facts.Socket, ...]:
        holders = self._holders()
        found: list[facts.Socket] = []
        for file in self._dump.files:
            pids = holders.get((file.kind, file.id), ())
            if isinstance(file, InternetSocket):
                remote = endpoint(file.destination, file.destination_port) if file.destination_port else None
                local = endpoint(file.source, file.source_port)
                found.append(facts.Socket(protocol(file), internet_state(file), local, remote, pids))
            elif isinstance(file, UnixSocket):
                found.append(facts.Socket("unix", unix_state(file), unix_name(file), self._peer(file), pids))
        return tuple(sorted(found, key=lambda socket: (socket.state != "listening", socket.protocol, socket.local)))

    def locks(self) -> tuple[facts.FileLock, ...]:
        if Kind.FILE_LOCKS.file() not in self._images:
            return ()
        tables = {task.pid: task.ids.files for task in self._dump.tasks}
        names = {
            (table, file.descriptor): file.name for table, files in self._tables.items() for file in reversed(files)
        }
        found = []
        for entry in self._images.entries(Kind.FILE_LOCKS, FileLockEntry):
            path = names.get((tables.get(entry.pid, -1), entry.fd))
            found.append(facts.FileLock(_LOCK_KINDS.get(entry.flag, f"kind {entry.flag}"), entry.pid, path))
        return tuple(found)

    def _peer(self, socket: UnixSocket) -> str | None:
        if not socket.peer:
            return None
        other = self._unix.get(socket.peer)
        return unix_name(other) if other else f"socket:[{socket.peer}] outside"

    def _holders(self) -> Mapping[tuple[str, int], tuple[int, ...]]:
        users: dict[int, list[int]] = {}
        for task in self._dump.tasks:
            if task.alive:
                users.setdefault(task.ids.files, []).append(task.pid)
        found: dict[tuple[str, int], dict[int, None]] = {}
        for descriptor in self._dump.descriptors:
            pids = found.setdefault((descriptor.kind, descriptor.file), {})
            pids.update(dict.fromkeys(users.get(descriptor.table, ())))
        return {key: tuple(pids) for key, pids in found.items()}

    def _areas(self, space: AddressSpace) -> tuple[facts.MemoryArea, ...]:
        return tuple(
            facts.MemoryArea(
                start=area.start,
                end=area.end,
                kind=area.kind,
                access=area.access,
                path=None if area.file is None else self._paths.get(area.file),
                dumped_bytes=area.dumped_bytes,
            )
            for area in space.areas
        )

    def _command(self, space: AddressSpace) -> tuple[str, ...]:
        """The words the process was started with, or has put there since; none when they are out of reach."""
        start, end = space.arguments
        size = min(end - start, COMMAND_BYTES_MAX, self._commands_left)
        if size <= 0 or not self._affordable(space):
            return ()
        content = read_memory(self._images, space, start, start + size)
        self._commands_left -= len(content)
        words = content.removesuffix(b"\0").split(b"\0")
        while words and not words[-1]:
            words.pop()
        return tuple(word.decode(errors="backslashreplace") for word in words)

    def _affordable(self, space: AddressSpace) -> bool:
        if not self._pass_bytes:
            return True
        path = self._images.path(space.pages)
        if path not in self._images.files or self._images.files.size(path) <= KEPT_FILE_BYTES:
            return True
        self._passes_left -= self._pass_bytes
        return self._passes_left >= 0


def _credentials(thread: Thread) -> facts.Credentials:
    held = thread.credentials
    return facts.Credentials(
        uid=held.euid,
        gid=held.egid,
        groups=held.groups,
        effective=tuple(sorted(capability_names(held.effective))),
        bounding=tuple(sorted(capability_names(held.bounding))),
        no_new_privileges=held.no_new_privs,
        seccomp=_SECCOMP.get(thread.seccomp_mode, f"mode {thread.seccomp_mode}"),
        lsm_profile=held.lsm_profile,
    )


def _memory(space: AddressSpace) -> facts.Memory:
    mapped = dict.fromkeys(KINDS, 0)
    dumped = dict.fromkeys(KINDS, 0)
    for area in space.areas:
        mapped[area.kind] += area.size
        dumped[area.kind] += area.dumped_bytes
    kinds = tuple(facts.MemoryKind(kind, mapped[kind], dumped[kind]) for kind in KINDS if mapped[kind])
    return facts.Memory(space.mapped_bytes, space.dumped_bytes, kinds)


def _total(memories: Iterable[facts.Memory]) -> facts.Memory:
    sums: dict[str, tuple[int, int]] = dict.fromkeys(KINDS, (0, 0))
    for memory in memories:
        for kind in memory.kinds:
            mapped, dumped = sums[kind.kind]
            sums[kind.kind] = mapped + kind.mapped_bytes, dumped + kind.dumped_bytes
    kinds = tuple(facts.MemoryKind(kind, mapped, dumped) for kind, (mapped, dumped) in sums.items() if mapped)
    return facts.Memory(sum(kind.mapped_bytes for kind in kinds), sum(kind.dumped_bytes for kind in kinds), kinds)


def _engine(files: CheckpointFiles, checkpoint: Checkpoint, dump: Dump) -> facts.Engine:
    host = read_dump_host(files)
    return facts.Engine(
        name=checkpoint.engine,
        runtime=checkpoint.runtime or None,
        criu_version=checkpoint.criu_version,
        kernel=host.kernel,
        architecture=dump.root.machine,
        cpu=host.cpu,
        cgroup_version=dump.cgroup_version,
        lsm=dump.inventory.lsm,
        network_lock=dump.inventory.network_lock,
        plugins=dump.inventory.plugins,
        frozen_seconds=host.frozen_s,
    )


def _container(checkpoint: Checkpoint, dump: Dump, checkpointed_at: datetime | None) -> facts.Container:
    base = checkpoint.base
    return facts.Container(
        id=checkpoint.container_id,
        name=checkpoint.container_name,
        pod=checkpoint.pod_name,
        namespace=checkpoint.pod_namespace,
        pod_uid=checkpoint.pod_uid,
        image=facts.BaseImage(base.name, base.reference, base.digest or base.config_digest),
        created_at=checkpoint.created_at,
        checkpointed_at=checkpointed_at,
        hostname=dump.hostname,
        command=checkpoint.spec.args,
        terminal=checkpoint.spec.terminal,
        root_readonly=checkpoint.spec.root_readonly,
    )


def _mounts(dump: Dump, spec: RuntimeSpec) -> tuple[facts.Mount, ...]:
    sources = {mount.destination: mount.source for mount in spec.mounts if mount.type == "bind"}
    found = []
    for mount in dump.mounts:
        # runc names every masked file so, crun each by its path
        masked = mount.external == "/dev/null" or (mount.external is not None and mount.mountpoint in spec.masked_paths)
        # runc hands in the hierarchies of cgroup v1 by itself
        external = mount.external is not None and not masked and mount.fstype not in ("cgroup", "cgroup2")
        source = sources.get(mount.mountpoint, mount.source) if external else mount.source
        found.append(
            facts.Mount(
                path=mount.mountpoint,
                type="masked" if masked else "bind" if external else mount.fstype or "unknown",
                source=source,
                readonly=mount.readonly,
                external=external,
                volume=volume_of(mount.mountpoint, source) if external else None,
            )
        )
    return tuple(sorted(found, key=lambda mount: mount.path))


def _namespaces(spec: RuntimeSpec) -> tuple[facts.Namespace, ...]:
    named = {namespace.type: namespace.path for namespace in spec.namespaces}
    kinds: Sequence[str] = ("pid", "network", "ipc", "uts", "mount", "user", "cgroup", "time")
    return tuple(
        facts.Namespace(kind, ("pod" if named[kind] else "container") if kind in named else "node") for kind in kinds
    )
