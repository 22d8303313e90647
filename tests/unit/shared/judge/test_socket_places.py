"""A Unix socket has its path where the live pod may have one, and belongs to a user of its."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shared.criu import criu_pb2 as pb
from shared.judge.file_rights import FileUser
from shared.judge.socket_places import SocketPlace, socket_paths_on_volumes, socket_place_refusals
from shared.spec import Mount, RuntimeSpec
from tests.support.pods import Security, read, spec, synthetic_dump

NOBODY = Security(uid=1000, gid=1000, groups=(2000,), no_new_privileges=True, drop=("ALL",))
READS = replace(NOBODY, data_read_only=True)
ROOT = Security()


def places(path: bytes, security: Security, live: RuntimeSpec | None = None, **fields: Any) -> list[str]:
    made = synthetic_dump(security)
    usk = pb.UnixSkEntry(**{"id": 77, "ino": 9, "type": 1, "state": 10, "name": path} | fields)
    made.add_file(pb.FileEntry(type=5, id=77, usk=usk), descriptor=9)
    return [each.sentence for each in socket_place_refusals(read(made), live or spec(security))]


def owner(uid: int, gid: int) -> pb.FilePermsEntry:
    return pb.FilePermsEntry(mode=0o140755, uid=uid, gid=gid)


@pytest.mark.parametrize(
    ("path", "security", "fields"),
    [
        (b"/run/s\0", NOBODY, {}),
        (b"/data/s\0", NOBODY, {"file_perms": owner(1000, 1000)}),
        (b"/data/s\0", NOBODY, {"file_perms": owner(1000, 2000)}),
        (b"/data/s\0", ROOT, {"file_perms": owner(4711, 4711)}),  # has CAP_CHOWN
        (b"/run/s\0", NOBODY, {"file_perms": owner(0, 0)}),  # in its own root, where it is nobody else's
        (b"/dev/shm/s\0", NOBODY, {}),
        (b"\0/data/s", READS, {}),
        (b"/data/s\0", READS, {"state": 1, "shutdown": 3}),  # an end of a connection, which CRIU does not bind
        (b"s\0", NOBODY, {"name_dir": b"/data"}),
    ],
)
def test_honest(path: bytes, security: Security, fields: dict[str, Any]) -> None:
    assert places(path, security, **fields) == []


@pytest.mark.parametrize(
    ("path", "security", "fields", "words"),
    [
        (b"/data/s\0", READS, {}, "has /data read-only; remove readOnly"),
        (b"/data/a/b\0", READS, {"deleted": True}, "has /data read-only; remove readOnly"),
        (b"s\0", READS, {"name_dir": b"/data"}, "has /data read-only; remove readOnly"),
        (b"/data/s\0", READS, {"type": 2, "state": 1}, "has /data read-only; remove readOnly"),
        (b"/run/s\0", replace(NOBODY, read_only_root=True), {}, "has / read-only; remove readOnlyRootFilesystem"),
        (b"/data\0", NOBODY, {}, "where the pod mounts a volume itself"),
        (b"/data/s\0", NOBODY, {"file_perms": owner(0, 1000)}, "belongs to user 0 and group 1000"),
        (b"/data/s\0", NOBODY, {"file_perms": owner(1000, 0)}, "belongs to user 1000 and group 0"),
        (b"/data/s\0", NOBODY, {"mnt_id": 147}, "on another mount than the one there"),
        (b"/data/s\0", NOBODY, {"mnt_id": 4711}, "on another mount than the one there"),
    ],
)
def test_forged(path: bytes, security: Security, fields: dict[str, Any], words: str) -> None:
    (sentence,) = places(path, security, **fields)
    assert words in sentence


def with_volume(destination: str, *options: str) -> RuntimeSpec:
    live = spec(NOBODY)
    return replace(live, mounts=(*live.mounts, Mount(destination, "bind", "/node/run", ("rbind", *options))))


@pytest.mark.parametrize("destination", ["/run", "/var/run"])
@pytest.mark.parametrize("path", [b"/run/s\0", b"/var/run/s\0"])
def test_var_run_is_the_link_to_run(destination: str, path: bytes) -> None:
    (sentence,) = places(path, NOBODY, with_volume(destination, "ro"))
    assert f"{destination} read-only" in sentence


def test_volume_behind_a_link_of_the_image() -> None:
    made = synthetic_dump(READS)
    made.mount("/data").mountpoint = b"/srv/data"
    usk = pb.UnixSkEntry(id=77, ino=9, type=1, state=10, name=b"/srv/data/s\0")
    made.add_file(pb.FileEntry(type=5, id=77, usk=usk), descriptor=9)
    (refused,) = socket_place_refusals(read(made), spec(READS))
    assert "has /data read-only" in refused.sentence
    (place,) = socket_paths_on_volumes(read(made), spec(READS))
    assert (place.path, place.volume, place.source) == ("/srv/data/s", "/srv/data", "/node/data")


def test_own_mount_below_a_read_only_root() -> None:
    security = Security(add=("CAP_SYS_ADMIN",), read_only_root=True)
    made = synthetic_dump(security)
    made.add_mount("/mine", fstype=5, source=b"tmpfs", root=b"/", ext_key=None)
    usk = pb.UnixSkEntry(id=77, ino=9, type=1, state=10, name=b"/mine/s\0")
    made.add_file(pb.FileEntry(type=5, id=77, usk=usk), descriptor=9)
    assert list(socket_place_refusals(read(made), spec(security))) == []


def facts(path: bytes, security: Security, live: RuntimeSpec | None = None) -> tuple[SocketPlace, ...]:
    made = synthetic_dump(security)
    for number, state in ((77, 10), (78, 1)):
        usk = pb.UnixSkEntry(id=number, ino=number, type=1, state=state, name=path)
        made.add_file(pb.FileEntry(type=5, id=number, usk=usk), descriptor=number)
    return socket_paths_on_volumes(read(made), live or spec(security))


def test_place_on_a_volume() -> None:
    (place,) = facts(b"/data/a/s\0", NOBODY)
    assert (place.path, place.volume, place.source, place.deleted) == ("/data/a/s", "/data", "/node/data", False)
    assert FileUser(1000, 1000, (1000, 2000)) in place.users
    assert place.capabilities == 0


def test_place_in_a_volume_at_var_run() -> None:
    (place,) = facts(b"/var/run/s\0", NOBODY, with_volume("/run", "rw"))
    assert (place.path, place.volume, place.source) == ("/var/run/s", "/run", "/node/run")


@pytest.mark.parametrize(
    ("path", "security"),
    [(b"/run/s\0", NOBODY), (b"\0/data/s", NOBODY), (b"/data/s\0", ROOT), (b"/data/s\0", Security(privileged=True))],
)
def test_nothing_to_look_at(path: bytes, security: Security) -> None:
    assert facts(path, security) == ()


def test_capabilities_that_matter() -> None:
    security = Security(uid=0, drop=("ALL",), add=("CAP_FOWNER", "CAP_KILL"), no_new_privileges=True)
    (place,) = facts(b"/data/s\0", security)
    assert place.capabilities == 1 << 3
