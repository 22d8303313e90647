from __future__ import annotations

from pathlib import Path

from nri_plugin.restore.identity import without_host_name

from shared.archive import open_checkpoint
from shared.criu.dump import Dump, read_dump
from shared.criu.images import ImageDirectory
from tests.support.checkpoints import SyntheticDump, containerd, write_directory


def replaced_and_read_again(path: Path, dump: SyntheticDump) -> tuple[dict[str, bytes], Dump]:
    files = containerd(dump)
    with open_checkpoint(write_directory(path / "dump", files)) as opened:
        replaced = dict(without_host_name(ImageDirectory(opened, "checkpoint"), read_dump(opened)))
    files |= {f"checkpoint/{name}": content for name, content in replaced.items()}
    with open_checkpoint(write_directory(path / "patched", files)) as opened:
        return replaced, read_dump(opened)


def test_restore_sets_no_host_name_and_every_other_namespace_stays_the_dumps(tmp_path: Path) -> None:
    dump = SyntheticDump.of_processes(3)
    replaced, patched = replaced_and_read_again(tmp_path, dump)
    assert sorted(replaced) == ["ids-1.img", "ids-2.img", "ids-3.img"]
    assert patched.hostname is None
    assert not patched.nested_namespaces
    for task in patched.tasks:
        assert task.ids.uts_ns == patched.inventory.ids.uts_ns
        assert task.ids.net_ns == dump.ids(task.pid).net_ns_id != patched.inventory.ids.net_ns
        assert task.ids.mnt_ns == dump.ids(task.pid).mnt_ns_id


def test_dump_that_shared_its_nodes_host_name_is_left_alone(tmp_path: Path) -> None:
    dump = SyntheticDump.of_processes()
    dump.ids(1).uts_ns_id = dump.inventory().root_ids.uts_ns_id
    replaced, _ = replaced_and_read_again(tmp_path, dump)
    assert replaced == {}
