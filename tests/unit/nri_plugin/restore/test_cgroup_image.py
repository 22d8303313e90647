from __future__ import annotations

from pathlib import Path

from nri_plugin.restore.cgroup_image import without_cgroups
from shared.archive import open_checkpoint
from shared.criu.dump import Dump, read_dump
from shared.criu.images import Kind, split
from tests.support.checkpoints import SyntheticDump, containerd, write_directory


def read(path: Path, made: SyntheticDump) -> Dump:
    with open_checkpoint(write_directory(path / "dump", containerd(made))) as opened:
        return read_dump(opened)


def test_sets_that_tasks_name_are_there_without_any_cgroup(tmp_path: Path) -> None:
    found = read(tmp_path, SyntheticDump.of_processes(2))
    assert {task.cgroup_set for task in found.tasks} == {2}
    (image,) = without_cgroups(found).values()
    # CgroupEntry { sets: { id: 1 } sets: { id: 2 } }
    assert list(split(image, Kind.CGROUP, "cgroup.img")) == [bytes.fromhex("0a020801 0a020802")]
