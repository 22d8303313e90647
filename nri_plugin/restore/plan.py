"""The plan directory: what the daemon tells restore-runc about one container.

``<plans>/<container id>/`` (0700) holds, all of it text that a shell reads with builtins:

| file       | content                                                                                    |
|------------|--------------------------------------------------------------------------------------------|
| lock       | held exclusively (flock) while the worker prepares; the kernel frees it when the worker dies |
| status     | ``ok``, ``plain``, ``refused <Reason>: <sentence>``, or ``undecided`` and the same: where the handler |
|            | is the runtime's default, restore-runc looks for itself; absent until decided                |
| request    | the RestoreRequest as JSON, for clean-up after a crash                                       |
| cgroup     | the container's own cgroup, relative to the root of each hierarchy                           |
| rootfs     | the root file system, where it is not in the bundle (CRI-O)                                  |
| image      | digest of the checkpoint image whose view this container uses                                |
| argv       | one further argument of ``runc restore`` a line                                              |
| criu.conf  | CRIU's options for this restore, named by the annotation ``org.criu.config``; before and after, a |
|            | link to the node's own: what runc dumps a container with                                     |
| mount      | options of the overlay over the bundle's rootfs, relative to the links in ``l/``             |
| namespaces | ``<type> <path>`` a line, of the pod's namespaces                                            |
| log, logpath | the checkpoint's log lines, and the container log they go to                              |
| shares-mounts | there when mounts made in the container are to appear on the node (Bidirectional)          |
| restores-ipc | there when objects of the pod's IPC namespace are restored, by which CRIU changes its settings |
| remove     | there when ``.nri-restore`` must be gone from the rootfs before the process resumes          |
| start-on-failure | there when a failed restore becomes an ordinary start                                  |
| adjust     | limits restored processes would exceed: ``oom_score_adj N``, ``nofile SOFT:HARD`` … a line |
| inherited  | the highest of each limit in the checkpoint that the pod has from the runtime: ``cpu=unlimited …`` |
| root-mode  | permission bits that the root directory had, in octal, where they are unusual               |
| cover, python | what to look at and put right in the mount tree (cover.py); the Python and the program for it |
| own-root   | where CRIU gets a root of its own: the Python and the program that make it (criu_root.py)    |
| criu-mounts, criu-root/, hidden/ | what is mounted there, onto which directories, and what hides the rest |
| own-cgroup | the same as ``cgroup``, where the pod has a cgroup namespace of its own                      |
| bin/, ns/  | ``criu`` as the runtime finds it; marks that its root and namespaces are made, and entered   |
| stopped    | pids (in the container) that were stopped when dumped                                        |
| keep       | directory that restore.log is copied to                                                      |
| work/      | CRIU's work directory                                                                        |
| report     | how the preparation went, as JSON: RestoreReport.document                                    |
| told       | there when metrics, log and Events know how the restore ended                                |
| cancelled  | there when the pod was stopped: nothing may be restored any more                             |

restore-runc adds ``root`` (runc's --root), ``runtime``, ``identity`` (what the pod's shared namespaces said before),
``restoring`` (locked by restore-runc while it restores), ``restored`` (the pid), ``why`` (``Reason: sentence`` of what
failed), and ``failed`` once a restore that came to no good end has been undone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nri_plugin.restore.request import RestoreRequest
from shared.errors import RestoreError, Unavailable

CONTAINER_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,254}")
"""runc's own rule is ``[\\w+.-]+`` (libcontainer/factory_linux.go); CRI runtimes use 64 hex digits."""

RUNC_CRIU_CONF = Path("/etc/criu/runc.conf")
"""What runc gives CRIU where no annotation names another file (libcontainer/criu_linux.go)."""


def one_line(text: str) -> str:
    """``text`` fit for a status line: no line breaks, no control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


class Plan:
    """One plan directory; every write is atomic."""

    def __init__(self, plans: Path, container_id: str) -> None:
        if not CONTAINER_ID.fullmatch(container_id):
            raise Unavailable("ContainerIdInvalid", f"the runtime named a container {container_id!r}")
        self.container_id = container_id
        self.path = plans / container_id

    def create(self, request: RestoreRequest) -> None:
        """Makes the directory; raises Unavailable("NodeStorageFailed")."""
        with _storage(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / "lock").touch(mode=0o600)
            with contextlib.suppress(FileExistsError):
                # A container that is not restored, or no more, is checkpointed as the node's administrator wants it.
                (self.path / "criu.conf").symlink_to(RUNC_CRIU_CONF)
        self.write("cgroup", f"{cgroup_of(request)}\n")
        if request.rootfs:
            self.write("rootfs", f"{one_line(request.rootfs)}\n")
        self.write("request", request.to_json())

    def write(self, name: str, text: str | bytes) -> None:
        """Replaces the file ``name``; raises Unavailable("NodeStorageFailed")."""
        target = self.path / name
        temporary = self.path / f".{name}.new"
        data = text if isinstance(text, bytes) else text.encode(errors="replace")
        with _storage(self.path):
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            temporary.rename(target)

    def read(self, name: str) -> str | None:
        """The file's text, None without one; what CRIU says of a checkpoint's own names need not be UTF-8."""
        try:
            return (self.path / name).read_text(errors="replace")
        except FileNotFoundError:
            return None

    def drop(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    @property
    def made_at(self) -> float:
        """When ``create`` was called, as a Unix time; also while it has not finished."""
        for file in (self.path / "request", self.path):
            with suppress(FileNotFoundError):
                return file.stat().st_mtime
        return 0.0

    @property
    def runs(self) -> bool:
        """Whether the restored process is still there."""
        return Path("/proc", (self.read("restored") or "").strip() or "none").exists()

    @property
    def status(self) -> str | None:
        return self.read("status")

    def refuse(self, error: RestoreError) -> None:
        self.write("status", one_line(f"refused {error.reason}: {error.sentence}") + "\n")

    def leave(self, error: RestoreError) -> None:
        """Has restore-runc start what is ordinary, by what it sees itself, and refuse the rest."""
        self.write("status", one_line(f"undecided {error.reason}: {error.sentence}") + "\n")

    def request(self) -> RestoreRequest | None:
        """The request the plan was made for; None when it was never written whole."""
        text = self.read("request")
        try:
            return RestoreRequest.from_json(json.loads(text)) if text else None
        except (ValueError, TypeError, KeyError):
            return None

    def lock(self) -> int:
        """A descriptor that holds the lock restore-runc waits for, until it is closed.

        Raises Unavailable("NodeStorageFailed").
        """
        with _storage(self.path):
            fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd


def cgroup_of(request: RestoreRequest) -> str:
    """The container's own cgroup, relative to each hierarchy's root; empty when it cannot be told apart from others.

    The systemd form is "slice:prefix:name" (runc libcontainer/cgroups/systemd).
    """
    path = request.cgroups_path
    if path.count(":") == 2:
        parent, prefix, name = path.split(":")
        path = f"{_expand_slice(parent)}/{prefix}-{name}.scope"
    path = path.strip("/")
    return path if request.container_id in path and ".." not in path.split("/") and path.isprintable() else ""


def _expand_slice(name: str) -> str:
    """``a-b.slice`` lies in ``a.slice/a-b.slice`` (systemd.slice(5))."""
    parts = name.removesuffix(".slice").split("-")
    return "/".join("-".join(parts[: end + 1]) + ".slice" for end in range(len(parts)))


@contextmanager
def _storage(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            "NodeStorageFailed",
            f"{path} cannot be written: {error.strerror}; free space there or see to its permissions",
        ) from error


def plans_in(directory: Path) -> list[Plan]:
    """Every plan directory below ``directory``."""
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return []
    return [Plan(directory, e.name) for e in entries if e.is_dir(follow_symlinks=False) and len(e.name) >= 32]
