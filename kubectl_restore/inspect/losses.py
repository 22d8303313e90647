"""What a restored container will not have, as far as the dump shows or every restore shares."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from kubectl_restore.inspect.facts import FileLock, Loss, LossCode, Mount, Process, Socket
from kubectl_restore.inspect.volumes import RENEWED
from shared import contract

_LISTED_MAX: Final = 8
"""Connections named one by one."""


def find_losses(
    processes: Sequence[Process],
    sockets: Sequence[Socket],
    mounts: Sequence[Mount],
    locks: Sequence[FileLock],
    *,
    terminal: bool,
    shared_memory_filled: bool,
) -> tuple[Loss, ...]:
    used = _used_paths(processes)
    found = [*_connections(sockets), *_addresses(sockets)]
    for mount in mounts:
        if mount.external:
            found += _mount(mount, _lies_below(used, mount.path), shared_memory_filled)
    if terminal:
        found.append(_certain("Terminal", "whoever was attached to the terminal must attach to the new pod"))
    if locks:
        count = f"{len(locks)} file lock{'s' if len(locks) > 1 else ''}"
        found.append(
            _certain("FileLocks", f"{count}: kept only with the pod annotation {contract.POD_CRIU}: file-locks")
        )
    found.append(
        Loss(
            "ExecSessions",
            False,
            "commands started by kubectl exec, and attach and port-forward sessions: a checkpoint never holds them",
        )
    )
    return tuple(sorted(found, key=lambda loss: not loss.certain))


def is_pod_address(endpoint: str) -> bool:
    """Whether ``ADDRESS:PORT`` is of one interface of the old pod: neither any address nor this host's own."""
    address = ipaddress.ip_address(endpoint.rpartition(":")[0].strip("[]"))
    return not (address.is_unspecified or address.is_loopback or address.is_multicast)


def _certain(code: LossCode, sentence: str) -> Loss:
    return Loss(code, True, sentence)


def _connections(sockets: Iterable[Socket]) -> Iterator[Loss]:
    found = [
        socket
        for socket in sockets
        if socket.protocol.startswith("tcp") and socket.state not in ("listening", "closed")
    ]
    for socket in found[:_LISTED_MAX]:
        yield _certain(
            "TcpConnection",
            f"the TCP connection {socket.local} to {socket.remote or 'nobody'} ({socket.state}): it is closed, "
            f"unless the pod's annotation {contract.POD_TCP} is established and both ends are still there",
        )
    if len(found) > _LISTED_MAX:
        yield _certain("TcpConnection", f"{len(found) - _LISTED_MAX} more TCP connections")


def _addresses(sockets: Iterable[Socket]) -> Iterator[Loss]:
    for socket in sockets:
        if socket.protocol != "unix" and socket.state in ("listening", "bound") and is_pod_address(socket.local):
            yield _certain(
                "PodIp",
                f"the {socket.protocol} socket {socket.local}: it is bound to the old pod's address, which the new "
                "pod does not have",
            )


def _mount(mount: Mount, used: bool, shared_memory_filled: bool) -> Iterator[Loss]:
    volume = mount.volume or ""
    if mount.path == "/dev/shm":
        sentence = "what /dev/shm held: it belongs to the pod, and the new pod's is empty"
        yield Loss("SharedMemory", used or shared_memory_filled, sentence)
    elif volume.startswith("emptyDir"):
        yield Loss("EmptyDir", used, f"what {mount.path} held ({volume}): the new pod gets an empty one")
    elif volume.startswith(("persistent volume", "volume ")):
        sentence = f"what {mount.path} held ({volume}): it will hold what is there then, not what it held when frozen"
        yield Loss("Volume", used, sentence)
    elif not volume and mount.type == "bind":
        sentence = f"what {mount.path} held ({mount.source} of the node): it will hold what the new pod mounts there"
        yield Loss("HostPath", used, sentence)
    elif volume.startswith(RENEWED):
        return


def _used_paths(processes: Iterable[Process]) -> set[str]:
    used = {file.name for process in processes for file in process.files if file.kind == "file"}
    return used | {area.path for process in processes for area in process.areas if area.path}


def _lies_below(paths: Iterable[str], folder: str) -> bool:
    start = folder.rstrip("/") + "/"
    return any(path == folder or path.startswith(start) for path in paths)
