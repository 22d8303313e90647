"""A machine: a Debian root in namespaces of its own (mount, PID, network, UTS, IPC, cgroup), with init as PID 1."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from shared.errors import Unavailable
from shared.run import run
from tests.e2e.node import cgroups
from tests.e2e.node.dependencies import dependencies
from tests.e2e.node.network import Network, remove_port
from tests.e2e.node.places import CHECKOUT, claim, runs
from tests.e2e.node.processes import children, identity, kill, own_identity
from tests.e2e.node.program import Program
from tests.e2e.node.roots import Flavour, base_root
from tests.e2e.node.waiting import LIMIT_S

ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}


class Machine:
    """``with Machine("containerd-1.7", network) as machine: machine.run(["true"])``."""

    def __init__(self, flavour: Flavour, network: Network, hostname: str) -> None:
        self.flavour = flavour
        self.network = network
        self.hostname = hostname
        self.name = secrets.token_hex(3)
        self.folder = runs() / f"machine-{self.name}"
        self.files: dict[str, str] = {}
        """Text files to put into the root before it boots, by absolute path."""
        self.systemd = False
        """Whether PID 1 is systemd rather than a program that only reaps orphans."""
        self.init = 0
        """PID 1 as the host numbers it; 0 while the machine is down."""
        self.address = ""
        self._boot: subprocess.Popen[bytes] | None = None
        self._programs: list[Program] = []

    # ---- life ----

    def start(self) -> None:
        """Boots the machine; raises Unavailable("MachineDidNotBoot") with what the boot script said."""
        base = base_root(self.flavour)
        packages = dependencies(base)
        claim(self.folder, own_identity())
        try:
            self._lay_out()
            joined = cgroups.create(self.name)
            self._launch(base, packages, joined)
            self.address = self.network.attach(self.name, self.init)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends every process of the machine and removes all it had on the host; harmless when it is down."""
        destroy(self.name)
        self.init = 0
        for program in self._programs:
            program.reap()
        self._programs.clear()
        if self._boot:
            self._boot.wait()
            self._boot = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _lay_out(self) -> None:
        for each in ("root", "disk/upper", "disk/work", "disk/containerd", "disk/containers", "files"):
            (self.folder / each).mkdir(parents=True)
        on_overlay = run(["stat", "-f", "-c", "%T", self.folder], timeout_s=10).stdout.strip() == "overlayfs"
        if on_overlay:
            for each in ("upper", "work", "containerd", "containers"):
                (self.folder / "disk" / each).rmdir()
            (self.folder / "in-memory").touch()
        init = (Path(__file__).parent / "node_init.py").read_text()
        hosts = f"127.0.0.1 localhost\n127.0.1.1 {self.hostname}\n"
        own = {"/usr/local/sbin/node-init": init, "/etc/hostname": f"{self.hostname}\n", "/etc/hosts": hosts}
        target = self.folder / ("files" if on_overlay else "disk/upper")
        for path, text in {"/etc/resolv.conf": "nameserver 127.0.0.1\n", **own, **self.files}.items():
            file = target / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def _launch(self, base: Path, packages: Path, joined: list[Path]) -> None:
        mounted = [each for each in cgroups.hierarchies() if each.options]
        names = [f"{each.folder.name}:{each.options}" for each in mounted] or [""]
        join = "".join(f"echo 0 > '{group}/cgroup.procs'\n" for group in joined)
        boot = Path(__file__).parent / "boot"
        script = (
            f"{join}hostname=$1; shift\n"
            'exec unshare --mount --pid --net --uts --ipc --cgroup --fork sh -c \'hostname "$0" && exec sh "$@"\' '
            '"$hostname" "$@"\n'
        )
        if self.only_cgroup2:
            names = [""]
        init = "systemd" if self.systemd else "node-init"
        words: list[str | Path] = [boot, self.folder, base, CHECKOUT, packages, init, *names]
        log = self.folder / "boot.log"
        with log.open("wb") as errors:
            self._boot = subprocess.Popen(
                ["sh", "-euc", script, "sh", self.hostname, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=ENVIRONMENT,
            )
        assert self._boot.stdout
        said = self._boot.stdout.readline()
        self._boot.stdout.close()
        if said != b"ready\n":
            raise Unavailable("MachineDidNotBoot", f"{self.hostname} did not boot: {log.read_text()[-2000:].strip()}")
        (self.init,) = children(self._boot.pid)
        (self.folder / "init").write_text(identity(self.init) or "")
        enter = self.folder / "enter"
        enter.write_text(
            f"#!/bin/sh\n# Runs a command in this machine.\nset -e\n{join}"
            f'exec nsenter -t {self.init} -m -u -i -n -p -C -- "$@"\n'
        )
        enter.chmod(0o755)

    @property
    def only_cgroup2(self) -> bool:
        """Whether version 1 is hidden: systemd 258, Debian 14, does without it."""
        return self.systemd and self.flavour == "containerd-2.1"

    # ---- use ----

    def path(self, inside: str) -> Path:
        """A path of the machine as the host's processes can open it; symlinks with absolute targets mislead."""
        return Path(f"/proc/{self.init}/root{inside}")

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = LIMIT_S,
        check: bool = True,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the machine; errors as shared.run.run, and it dies with its caller."""
        return run(
            [self.folder / "enter", "setpriv", "--pdeathsig", "KILL", *argv],
            timeout_s=timeout_s,
            check=check,
            stdin=stdin,
            env={**ENVIRONMENT, **(env or {})},
        )

    def sh(self, script: str, *, timeout_s: float = LIMIT_S) -> str:
        """What a shell script printed; raises CommandFailed."""
        return self.run(["sh", "-euc", script], timeout_s=timeout_s).stdout

    def spawn(self, argv: Sequence[str], log: str, *, env: Mapping[str, str] | None = None) -> Program:
        """Starts a long-running program; its output is appended to the machine's file ``log``."""
        program = Program(
            [str(self.folder / "enter"), *argv], self.path(log), {**ENVIRONMENT, **(env or {})}, name=argv[0]
        )
        self._programs.append(program)
        return program

    def processes(self) -> dict[int, str]:
        """Command lines of all processes in the machine's PID namespace, by the host's process id."""
        own = Path(f"/proc/{self.init}/ns/pid").stat().st_ino
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                # Nested namespaces (containers) list more than two numbers, those of the machine at second place.
                status = (entry / "status").read_text()
                if len(status.partition("\nNSpid:")[2].split("\n")[0].split()) < 2 or not _below(entry, own, self.name):
                    continue
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ").strip() or status.split()[1]
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found


def _below(process: Path, namespace: int, machine: str) -> bool:
    if f"/{cgroups.PREFIX}{machine}" in (process / "cgroup").read_text():
        return True
    try:
        return (process / "ns/pid").stat().st_ino == namespace
    except PermissionError:  # somebody else's, with more rights than we have (ptrace(2), "access mode checking")
        return False


def destroy(name: str) -> None:
    """Removes everything a machine has on the host, whatever state it is in; raises TimeoutError, OSError."""
    folder = runs() / f"machine-{name}"
    record = folder / "init"
    if record.exists():
        kill(record.read_text())
    cgroups.remove(name)
    remove_port(name)
    if not folder.exists():
        return
    # The mount namespace goes with its last process; until then the kernel keeps the files anyway.
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            shutil.rmtree(folder)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
