from __future__ import annotations

import pytest

from kubectl_restore.inspect.facts import FileLock, Loss, Mount, OpenFile, Process, Socket
from kubectl_restore.inspect.losses import find_losses, is_pod_address
from kubectl_restore.inspect.volumes import volume_of

PODS = "/var/lib/kubelet/pods/50d85d8c/volumes"


def process(*paths: str) -> Process:
    files = tuple(OpenFile(number, "file", path) for number, path in enumerate(paths))
    return Process(1, 0, 1, "app", (), False, None, None, "alive", 1, None, None, (), files)


def mount(path: str, volume: str | None = None, *, external: bool = True) -> Mount:
    return Mount(path, "bind", "/node/path", False, external, volume)


def losses(
    *mounts: Mount,
    sockets: tuple[Socket, ...] = (),
    processes: tuple[Process, ...] = (),
    locks: tuple[FileLock, ...] = (),
    terminal: bool = False,
    filled: bool = False,
) -> dict[str, Loss]:
    found = find_losses(processes, sockets, mounts, locks, terminal=terminal, shared_memory_filled=filled)
    return {loss.code: loss for loss in found}


def test_sessions_of_kubectl_are_always_lost() -> None:
    assert set(losses()) == {"ExecSessions"}


def test_shared_memory_is_lost_and_certain_when_in_use() -> None:
    assert losses(mount("/dev/shm"))["SharedMemory"].certain is False
    assert losses(mount("/dev/shm"), processes=(process("/dev/shm/ring"),))["SharedMemory"].certain is True


def test_shared_memory_that_podman_packed_is_lost_for_certain() -> None:
    assert losses(mount("/dev/shm"), filled=True)["SharedMemory"].certain is True


def test_shared_memory_of_the_container_itself_is_dumped() -> None:
    assert "SharedMemory" not in losses(mount("/dev/shm", external=False))


@pytest.mark.parametrize(
    ("volume", "code"),
    [
        ("emptyDir cache", "EmptyDir"),
        ("persistent volume data", "Volume"),
        ("volume x", "Volume"),
        (None, "HostPath"),
    ],
)
def test_volumes(volume: str | None, code: str) -> None:
    found = losses(mount("/data", volume))
    assert set(found) == {code, "ExecSessions"}
    assert "/data" in found[code].sentence


@pytest.mark.parametrize("volume", ["configMap c", "secret s", "projected t", "downwardAPI d", "the pod's hosts file"])
def test_what_the_kubelet_writes_anew_is_not_lost(volume: str) -> None:
    assert set(losses(mount("/x", volume))) == {"ExecSessions"}


def test_file_open_beside_a_volume_does_not_use_it() -> None:
    assert losses(mount("/data", "emptyDir c"), processes=(process("/database"),))["EmptyDir"].certain is False
    assert losses(mount("/data", "emptyDir c"), processes=(process("/data/x"),))["EmptyDir"].certain is True


def test_connections_are_lost_listeners_are_not() -> None:
    found = losses(
        sockets=(
            Socket("tcp", "listening", "0.0.0.0:80", None, (1,)),
            Socket("tcp6", "closed by the peer", "[fd00::1]:80", "[fd00::2]:9", (1,)),
            Socket("unix", "connected", "/run/x", None, (1,)),
        )
    )
    assert set(found) == {"TcpConnection", "ExecSessions"}
    assert "[fd00::2]:9" in found["TcpConnection"].sentence


def test_many_connections_are_counted() -> None:
    sockets = tuple(Socket("tcp", "established", f"10.0.0.1:{n}", "10.0.0.2:1", (1,)) for n in range(1, 101))
    found = find_losses((), sockets, (), (), terminal=False, shared_memory_filled=False)
    assert len([loss for loss in found if loss.code == "TcpConnection"]) == 9
    assert "92 more TCP connections" in {loss.sentence for loss in found}


def test_socket_bound_to_the_pods_address() -> None:
    found = losses(sockets=(Socket("udp", "bound", "10.0.0.5:53", None, (1,)),))
    assert "10.0.0.5:53" in found["PodIp"].sentence


def test_terminal_and_locks() -> None:
    found = losses(terminal=True, locks=(FileLock("flock", 1, "/x"),))
    assert found["Terminal"].certain
    assert "nri-restore/criu: file-locks" in found["FileLocks"].sentence


def test_what_is_certain_comes_first() -> None:
    found = find_losses((), (), (mount("/dev/shm"),), (), terminal=True, shared_memory_filled=False)
    assert [loss.certain for loss in found] == [True, False, False]


@pytest.mark.parametrize(
    ("endpoint", "own"),
    [
        ("0.0.0.0:80", False),
        ("127.0.0.1:80", False),
        ("[::]:80", False),
        ("[::1]:80", False),
        ("224.0.0.1:5353", False),
        ("10.0.0.5:80", True),
        ("[fd00::5]:80", True),
    ],
)
def test_addresses_that_a_new_pod_does_not_have(endpoint: str, own: bool) -> None:
    assert is_pod_address(endpoint) is own


@pytest.mark.parametrize(
    ("destination", "source", "volume"),
    [
        ("/data", f"{PODS}/kubernetes.io~empty-dir/cache", "emptyDir cache"),
        ("/c", f"{PODS}/kubernetes.io~configmap/conf", "configMap conf"),
        ("/s", f"{PODS}/kubernetes.io~secret/keys", "secret keys"),
        ("/t", f"{PODS}/kubernetes.io~projected/kube-api-access-x", "projected kube-api-access-x"),
        ("/p", f"{PODS}/kubernetes.io~csi/pvc-1/mount", "persistent volume pvc-1"),
        ("/q", "/var/lib/kubelet/pods/u/volume-subpaths/conf/app/0", "volume conf"),
        ("/etc/hosts", "/var/lib/kubelet/pods/u/etc-hosts", "the pod's hosts file"),
        ("/host", "/srv/data", None),
    ],
)
def test_volumes_by_the_kubelets_paths(destination: str, source: str, volume: str | None) -> None:
    assert volume_of(destination, source) == volume
