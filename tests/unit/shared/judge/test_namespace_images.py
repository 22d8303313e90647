"""What CRIU is told of namespaces, and which it is not told of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message

from shared.criu import criu_pb2 as pb
from shared.criu.decode import decode
from shared.criu.dump import read_dump
from shared.criu.images import ImageDirectory, Kind, split
from shared.errors import Refused
from shared.judge import inventory, ipc, namespace_images
from shared.judge.namespaces import namespace_refusals, outside_namespaces, restored_namespaces
from shared.judge.rules import Fields, Rules, free
from tests.support.checkpoints import SyntheticDump
from tests.support.pods import InMemory, Security, read, spec, synthetic_dump

Change = Callable[[SyntheticDump], None]
UNRULED = {"TaskKobjIdsEntry": pb.TaskKobjIdsEntry, "TunLinkEntry": pb.TunLinkEntry}
RULES = Rules(
    {
        **inventory.FIELDS,
        **ipc.FIELDS,
        **namespace_images.FIELDS,
        **{
            name: {each.name: free("of another module") for each in message.DESCRIPTOR.fields}
            for name, message in UNRULED.items()
        },
    }
)


def files(module: Any, made: SyntheticDump) -> dict[str, bytes]:
    images = ImageDirectory(InMemory(made.files()), "checkpoint")
    return {each.name: each.pieces[0] for each in module.image_files(images, read_dump(images.files), RULES)}


def messages(content: bytes, kind: Kind, message: type[Message]) -> list[Any]:
    return [decode(message, piece, "written") for piece in split(content, kind, "written")]


def shared_processes() -> SyntheticDump:
    return synthetic_dump(Security(share_processes=True))


@pytest.mark.parametrize("fields", [inventory.FIELDS, ipc.FIELDS, namespace_images.FIELDS])
def test_every_field_has_a_rule(fields: Fields) -> None:
    for name, rules in fields.items():
        assert set(rules) == {each.name for each in getattr(pb, name).DESCRIPTOR.fields}, name


def test_inventory_says_of_namespaces_only_which_the_container_shared() -> None:
    found = files(inventory, synthetic_dump(Security()))
    (entry,) = messages(found["inventory.img"], Kind.INVENTORY, pb.InventoryEntry)
    ids = entry.root_ids
    assert (entry.img_version, entry.fdinfo_per_id, entry.ns_per_id, entry.network_lock_method) == (2, True, True, 2)
    assert (ids.vm_id, ids.files_id, ids.fs_id, ids.sighand_id) == (0, 0, 0, 0)
    other = 0xFFFFFFFF
    assert (ids.pid_ns_id, ids.net_ns_id, ids.ipc_ns_id, ids.mnt_ns_id) == (other, other, other, other)
    assert (ids.user_ns_id, ids.cgroup_ns_id, ids.time_ns_id) == (other, other, other)
    assert entry.HasField("plugins_entry") and not entry.plugins_entry.plugins
    assert not entry.HasField("root_cg_set") and not entry.HasField("dump_criu_run_id")


def test_inventory_follows_from_nothing_but_what_is_kept() -> None:
    made = synthetic_dump(Security())
    honest = files(inventory, made)
    entry = made.inventory()
    entry.root_cg_set, entry.dump_uptime, entry.pre_dump_mode, entry.network_lock_method = 0, 9, 3, 1
    entry.root_ids.vm_id = entry.root_ids.files_id = 2
    entry.ClearField("plugins_entry")
    assert files(inventory, made) == honest


def connected(made: SyntheticDump) -> None:
    socket = pb.InetSkEntry(id=50, family=2, type=1, proto=6, state=1, src_addr=[1], dst_addr=[2])
    made.add_file(pb.FileEntry(type=4, id=50, isk=socket), descriptor=9)


def test_network_of_a_connection_is_locked_as_it_was() -> None:
    made = synthetic_dump(Security())
    connected(made)
    made.inventory().network_lock_method = 1
    (entry,) = messages(files(inventory, made)["inventory.img"], Kind.INVENTORY, pb.InventoryEntry)
    assert (entry.network_lock_method, entry.dump_criu_run_id) == (1, made.inventory().dump_criu_run_id)


@pytest.mark.parametrize("field", ["tcp_close", "allow_uprobes"])
def test_options_that_criu_asks_for_are_kept(field: str) -> None:
    made = synthetic_dump(Security())
    setattr(made.inventory(), field, True)
    (entry,) = messages(files(inventory, made)["inventory.img"], Kind.INVENTORY, pb.InventoryEntry)
    assert getattr(entry, field)


def test_run_that_could_be_a_command_is_refused() -> None:
    made = synthetic_dump(Security())
    made.inventory().dump_criu_run_id = b"x; flush ruleset"
    with pytest.raises(Refused, match=r"InventoryEntry\.dump_criu_run_id"):
        files(inventory, made)


def test_network_and_processes_are_those_handed_in() -> None:
    found = files(namespace_images, shared_processes())
    assert messages(found["netns-10.img"], Kind.NETNS, pb.NetnsEntry) == [pb.NetnsEntry(ext_key=b"extRootNetNS")]
    assert messages(found["pidns-9.img"], Kind.PIDNS, pb.PidnsEntry) == [pb.PidnsEntry(ext_key=b"extRootPidNS")]
    assert set(found) == {"netns-10.img", "pidns-9.img"}
    assert files(namespace_images, synthetic_dump(Security(host_network=True))) == {}


@pytest.mark.parametrize("field", sorted(set(pb.NetnsEntry.DESCRIPTOR.fields_by_name) - {"ext_key"}))
def test_settings_of_a_network_are_refused(field: str) -> None:
    made = synthetic_dump(Security())
    descriptor = pb.NetnsEntry.DESCRIPTOR.fields_by_name[field]
    if descriptor.message_type is None:
        value: Any = 1
    else:
        value = pb.NetnsId(target_ns_id=1, netnsid_value=2) if field == "nsids" else pb.SysctlEntry(type=6, iarg=1)
    getattr(made.images["netns-10.img"][0], field).append(value)
    with pytest.raises(Refused, match=f"NetnsEntry.{field}"):
        files(namespace_images, made)


@pytest.mark.parametrize("number", [0, 44])
def test_clocks_are_set_in_the_time_namespace_that_criu_makes(number: int) -> None:
    made = synthetic_dump(Security())
    clocks = pb.TimensEntry(monotonic=pb.Timespec(tv_sec=1, tv_nsec=2), boottime=pb.Timespec(tv_sec=3, tv_nsec=4))
    made.images[f"timens-{number}.img"] = [clocks]
    if number:
        for pid in (1, 2):
            made.ids(pid).time_ns_id = number
    assert messages(files(namespace_images, made)["timens-0.img"], Kind.TIMENS, pb.TimensEntry) == [clocks]


@pytest.mark.parametrize("time", [{"tv_sec": 1 << 32, "tv_nsec": 0}, {"tv_sec": 0, "tv_nsec": 1_000_000_000}])
def test_clock_that_no_machine_has_is_refused(time: dict[str, int]) -> None:
    made = synthetic_dump(Security())
    made.images["timens-0.img"] = [
        pb.TimensEntry(monotonic=pb.Timespec(**time), boottime=pb.Timespec(tv_sec=0, tv_nsec=0))
    ]
    with pytest.raises(Refused, match=r"Timespec\.tv_"):
        files(namespace_images, made)


def test_criu_is_told_of_no_namespace_that_it_would_set_up() -> None:
    made = synthetic_dump(Security())
    for pid in (1, 2):
        made.ids(pid).time_ns_id, made.ids(pid).cgroup_ns_id = 44, 45
    dump = read(made)
    for task in dump.tasks:
        found, outside, root = restored_namespaces(dump, task), outside_namespaces(dump), dump.root.ids
        assert (found.uts_ns, found.ipc_ns, found.time_ns) == (outside.uts_ns, outside.ipc_ns, outside.time_ns)
        assert (found.user_ns, found.cgroup_ns) == (outside.user_ns, outside.cgroup_ns)
        assert (found.pid_ns, found.net_ns, found.mnt_ns) == (root.pid_ns, root.net_ns, root.mnt_ns)
        assert (found.vm, found.files, found.fs) == (task.ids.vm, task.ids.files, task.ids.fs)


def test_process_stays_in_the_mount_namespace_it_made() -> None:
    made = synthetic_dump(Security(add=("CAP_SYS_ADMIN",)))
    made.nest_mounts(2)
    dump = read(made)
    assert [restored_namespaces(dump, task).mnt_ns for task in dump.tasks] == [13, 14]


def refusals(made: SyntheticDump, security: Security) -> list[tuple[str, str]]:
    found = namespace_refusals(read(made), spec(security), shared=lambda namespace: "self" in namespace.path)
    return [(each.reason, each.sentence) for each in found]


def test_processes_are_shared_with_the_pod_exactly_where_they_were() -> None:
    for security in (Security(), Security(share_processes=True)):
        assert refusals(synthetic_dump(security), security) == []
    ((reason, sentence),) = refusals(shared_processes(), Security())
    assert reason == "NamespacesDiffer" and "shareProcessNamespace: true" in sentence
    ((reason, sentence),) = refusals(synthetic_dump(Security()), Security(share_processes=True))
    assert reason == "NamespacesDiffer" and "shareProcessNamespace: false" in sentence
    made = shared_processes()
    made.images["pidns-9.img"] = [pb.PidnsEntry(ext_key=b"net")]
    assert [reason for reason, _ in refusals(made, Security(share_processes=True))] == ["NamespacesDiffer"]


@pytest.mark.parametrize("field", ["pid", "net", "ipc", "uts", "user", "cgroup", "time"])
def test_namespace_of_a_process_that_criu_cannot_make_again_is_refused(field: str) -> None:
    may_mount = Security(add=("CAP_SYS_ADMIN",))
    made = synthetic_dump(may_mount)
    setattr(made.ids(2), f"{field}_ns_id", 77)
    assert ("NestedNamespaces" in {reason for reason, _ in refusals(made, may_mount)}) is True


def test_network_of_the_dumps_own_is_refused_in_every_pod() -> None:
    made = synthetic_dump(Security())
    made.images["netns-10.img"] = [pb.NetnsEntry()]
    for security in (Security(), Security(host_network=True)):
        assert any("would make a network namespace" in sentence for _, sentence in refusals(made, security))
