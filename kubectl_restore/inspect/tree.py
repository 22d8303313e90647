"""An inspection as a tree of lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from kubectl_restore.inspect.facts import Credentials, Inspection, Memory, Mount, Process
from kubectl_restore.printing import Branch, Piece, count_of, quoted_words, shortened, size_of

FILES_MAX: Final = 20
AREAS_MAX: Final = 12
COMMAND_MAX: Final = 160


def tree_of(found: Inspection) -> Branch:
    """Every part has its branch; long lists are cut and say so."""
    container = found.container
    pod = f" of pod {container.namespace}/{container.pod}" if container.pod else ""
    root = Branch.of(Piece(container.name or container.id, "strong"), f", container{pod}")
    root.below += [_taken(found), _image(found), _processes(found), _memory(found)]
    root.below += [branch for branch in (_sockets(found), _locks(found)) if branch]
    root.below += [_mounts(found.mounts), _rights(found), _namespaces(found), _changes(found), _losses(found)]
    return root


def _taken(found: Inspection) -> Branch:
    engine, moment = found.engine, found.container.checkpointed_at
    branch = Branch.of("taken ", moment.strftime("%Y-%m-%d %H:%M:%S UTC") if moment else "at a time not recorded")
    runtime = f" ({engine.runtime})" if engine.runtime else ""
    branch.add(f"by {engine.name}{runtime}, CRIU {engine.criu_version or 'of unknown version'}")
    machine = [f"Linux {engine.kernel}" if engine.kernel else "", engine.architecture, engine.cpu or ""]
    if engine.cgroup_version:
        machine.append(f"cgroup v{engine.cgroup_version}")
    branch.add("on ", ", ".join(part for part in machine if part))
    if engine.frozen_seconds is not None:
        branch.add(f"frozen for {engine.frozen_seconds * 1000:.0f} ms")
    if engine.plugins:
        branch.add(Piece(f"with CRIU's plugins {', '.join(engine.plugins)}", "warn"))
    archive = found.archive
    compressed = "" if archive.compression == "none" else f", {archive.compression}"
    branch.add(f"{archive.name}: {count_of(archive.files, 'file')}, {size_of(archive.size_bytes)}{compressed}")
    return branch


def _image(found: Inspection) -> Branch:
    image = found.container.image
    branch = Branch.of("image ", Piece(image.name or image.reference or "not recorded", "strong"))
    if image.digest:
        branch.add(Piece(image.digest, "dim"))
    return branch


def _processes(found: Inspection) -> Branch:
    branch = Branch.of(count_of(len(found.processes), "process", "processes"))
    made: dict[int, Branch] = {}
    for process in found.processes:
        own = _process(process)
        made[process.pid] = own
        made.get(process.parent, branch).below.append(own)
    return branch


def _process(process: Process) -> Branch:
    branch = Branch.of(Piece(f"{process.pid} ", "dim"), Piece(command_of(process), "strong"))
    if process.state != "alive":
        branch.pieces = (*branch.pieces, Piece(f"  {process.state}", "warn"))
    if process.credentials is None:
        return branch
    about = [process.executable or "executable not recorded", f"in {process.working_directory or '?'}"]
    about.append(f"uid {process.credentials.uid}")
    if process.threads > 1:
        about.append(count_of(process.threads, "thread"))
    branch.add(", ".join(about))
    if process.memory:
        branch.add(_memory_line(process.memory))
    for file in process.files[:FILES_MAX]:
        kind = "" if file.name.startswith(file.kind) else f"{file.kind} "
        branch.add(Piece(f"fd {file.descriptor} ", "dim"), kind, file.name)
    _say_rest(branch, len(process.files) - FILES_MAX, "more open file")
    return branch


def command_of(process: Process) -> str:
    """The command line, or the name in brackets as ps shows it where that is all there is."""
    return shortened(quoted_words(process.command), COMMAND_MAX) if process.command else f"[{process.name}]"


def _memory_line(memory: Memory) -> str:
    parts = (f"{kind.kind} {size_of(kind.dumped_bytes)}" for kind in memory.kinds if kind.dumped_bytes)
    return f"memory {size_of(memory.dumped_bytes)} of {size_of(memory.mapped_bytes)} mapped: {', '.join(parts)}"


def _memory(found: Inspection) -> Branch:
    memory = found.memory
    branch = Branch.of(f"memory: {size_of(memory.dumped_bytes)} dumped of {size_of(memory.mapped_bytes)} mapped")
    for kind in memory.kinds:
        branch.add(f"{kind.kind:<12} {size_of(kind.dumped_bytes):>9} of {size_of(kind.mapped_bytes)}")
    for segment in found.shared_segments[:AREAS_MAX]:
        pids = ", ".join(map(str, segment.processes))
        branch.add(f"shared segment {segment.number}: {size_of(segment.dumped_bytes)}, process {pids}")
    _say_rest(branch, len(found.shared_segments) - AREAS_MAX, "more shared segment")
    return branch


def _sockets(found: Inspection) -> Branch | None:
    if not found.sockets:
        return None
    branch = Branch.of(count_of(len(found.sockets), "socket"))
    for socket in found.sockets[:FILES_MAX]:
        remote = f" to {socket.remote}" if socket.remote else ""
        pids = ", ".join(map(str, socket.processes)) or "none"
        branch.add(
            f"{socket.protocol:<5} ",
            Piece(socket.state, "warn" if socket.state == "established" else "plain"),
            f" {socket.local}{remote}",
            Piece(f"  process {pids}", "dim"),
        )
    _say_rest(branch, len(found.sockets) - FILES_MAX, "more socket")
    return branch


def _locks(found: Inspection) -> Branch | None:
    if not found.file_locks:
        return None
    branch = Branch.of(count_of(len(found.file_locks), "file lock"))
    for lock in found.file_locks[:FILES_MAX]:
        branch.add(f"{lock.kind} on {lock.path or 'a file'}, process {lock.process}")
    _say_rest(branch, len(found.file_locks) - FILES_MAX, "more file lock")
    return branch


def _mounts(mounts: Sequence[Mount]) -> Branch:
    external = [mount for mount in mounts if mount.external]
    branch = Branch.of(
        f"{count_of(len(external), 'mount')} from the pod or node, {len(mounts) - len(external)} of its own"
    )
    for mount in external:
        branch.add(
            f"{mount.path}{' (read-only)' if mount.readonly else ''}: {mount.volume or mount.source}",
        )
    return branch


def _rights(found: Inspection) -> Branch:
    branch = Branch.of("rights")
    for credentials, pids in _by_credentials(found.processes):
        who = "every process" if len(pids) == len(found.processes) else f"process {', '.join(map(str, pids))}"
        own = branch.add(f"{who}: uid {credentials.uid}, gid {credentials.gid}, groups {_numbers(credentials.groups)}")
        own.add("capabilities ", " ".join(_short(credentials.effective)) or "none")
        gains = sorted(set(credentials.bounding) - set(credentials.effective))
        if gains:
            own.add("could gain ", " ".join(_short(gains)))
        lsm = f", {credentials.lsm_profile}" if credentials.lsm_profile else ""
        gain = "no new privileges" if credentials.no_new_privileges else "may gain privileges"
        own.add(f"seccomp {credentials.seccomp}, {gain}{lsm}")
    return branch


def _by_credentials(processes: Iterable[Process]) -> Iterator[tuple[Credentials, list[int]]]:
    groups: dict[Credentials, list[int]] = {}
    for process in processes:
        if process.credentials:
            groups.setdefault(process.credentials, []).append(process.pid)
    yield from groups.items()


def _short(capabilities: Iterable[str]) -> list[str]:
    return [name.removeprefix("CAP_") for name in capabilities]


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _namespaces(found: Inspection) -> Branch:
    shared: dict[str, list[str]] = {}
    for namespace in found.namespaces:
        shared.setdefault(namespace.shared_with, []).append(namespace.kind)
    words = {"container": "its own", "pod": "the pod's", "node": "the node's"}
    return Branch.of("namespaces: ", "; ".join(f"{words[who]} {', '.join(kinds)}" for who, kinds in shared.items()))


def _changes(found: Inspection) -> Branch:
    changes = found.root_changes
    diff = "no archive of" if changes.diff_bytes is None else f"{size_of(changes.diff_bytes)} of"
    deleted = f", {count_of(changes.deleted_paths, 'deleted path')}" if changes.deleted_paths else ""
    return Branch.of(f"root file system: {diff} changed files{deleted}")


def _losses(found: Inspection) -> Branch:
    certain = [loss for loss in found.losses if loss.certain]
    branch = Branch.of(Piece("will be lost", "warn" if certain else "plain"))
    for loss in found.losses:
        branch.add(Piece("" if loss.certain else "if any: ", "dim"), loss.sentence)
    return branch


def _say_rest(branch: Branch, rest: int, what: str) -> None:
    if rest > 0:
        branch.add(Piece(f"and {count_of(rest, what)}; -o json has them all", "dim"))
