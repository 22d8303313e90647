"""How CRIU and the runtime are called for one container: criu.conf, arguments of ``runc restore``, what to wake.

runc (1.1 and later) hands the file named by the annotation ``org.criu.config`` to CRIU instead of /etc/criu/runc.conf;
its options win over those of runc's own request (libcontainer/criu_linux.go handleCriuConfigurationFile).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nri_plugin.restore.request import RestoreRequest
from shared.errors import Refused

if TYPE_CHECKING:  # the session needs only the annotation, not the readers of CRIU's images
    from shared.criu.dump import Dump


def criu_config(request: RestoreRequest, dump: Dump) -> str:
    """The text of criu.conf; raises Refused("TcpEstablished") when the pod wants no connection cut or kept."""
    # Processes stay stopped until the runtime calls `start`, as a created container's do.
    # They stay in the container's new cgroup, where runc put CRIU. Else CRIU would make every cgroup the dump names and
    # set its properties, devices and limits among them, and on cgroup v2 move processes into the old pod's (cri-o issue
    # 6894). Said here because runc 1.1 takes its own option for it and forgets it (the mode's number is 0).
    lines = ["leave-stopped", "verbosity 2", "manage-cgroups=ignore"]
    if request.tcp == "refuse" and dump.sockets_established:
        raise Refused(
            "TcpEstablished",
            "the checkpoint holds established TCP connections and the pod's annotation nri-restore/tcp is refuse; "
            "set it to close (peers see a reset) or established (both ends must still be there)",
        )
    lines.append("tcp-established" if request.tcp == "established" else "tcp-close")
    lines.extend(request.criu)
    return "\n".join(lines) + "\n"


def arguments(images: Path, work: Path) -> tuple[str, ...]:
    """Arguments for ``runc restore`` beside those it shares with ``create``."""
    return "--image-path", str(images), "--work-path", str(work)


def stopped_pids(dump: Dump) -> tuple[int, ...]:
    """Pids (in the container) that were stopped when dumped and must stay so: everything else is woken by SIGCONT."""
    return tuple(task.pid for task in dump.tasks if task.state == "stopped")


def lasting(namespace: str) -> str:
    """The same namespace by a path that outlives the pod, where it is the node's own."""
    own = Path("/proc/1/ns") / Path(namespace).name
    try:
        return str(own) if own.samefile(namespace) else namespace
    except OSError:
        return namespace
