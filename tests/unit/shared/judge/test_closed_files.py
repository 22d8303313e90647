"""A live pod comes when the checkpoint's files were read and closed again: nothing is read of them then."""

from __future__ import annotations

from pathlib import Path

from shared.archive import open_checkpoint
from shared.judge import files, read
from shared.judge.mount_images import EMPTY
from tests.support.checkpoints import containerd, write_directory
from tests.support.open_files import with_every_kind
from tests.support.pods import Security, spec

POD = Security(tty=True)


def test_dump_with_every_kind_of_file_is_judged(tmp_path: Path) -> None:
    made = with_every_kind(POD)
    for mount in made.images["mountpoints-13.img"]:
        made.raw.setdefault(f"tmpfs-dev-{mount.root_dev}.tar.gz.img", EMPTY)  # type: ignore[attr-defined]
    with open_checkpoint(write_directory(tmp_path / "dump", containerd(made))) as checkpoint:
        reading = read(checkpoint)
    assert list(files.refusals(reading.dump.source, reading.dump, spec(POD))) == []
