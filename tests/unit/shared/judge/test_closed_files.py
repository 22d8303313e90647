"""A dump that was read is judged for many pods, when its files are closed."""

from __future__ import annotations

from pathlib import Path

from shared.archive import open_checkpoint
from shared.criu import criu_pb2 as pb
from shared.criu.dump import read_dump
from shared.criu.images import Kind, join
from shared.judge.pipes import check_pipes, pipe_refusals
from tests.support.pods import Security, spec, synthetic_dump


def test_what_pipes_hold_is_not_read_again(tmp_path: Path) -> None:
    made = synthetic_dump(Security(), 1)
    made.raw["pipes-data.img"] = join(Kind.PIPES_DATA, [pb.PipeDataEntry(pipe_id=7, handle_bytes=2, size=4096)]) + b"ab"
    for name, content in made.files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with open_checkpoint(tmp_path) as files:
        dump = read_dump(files)
        check_pipes(dump.source)
    assert list(pipe_refusals(dump.source, dump, spec(Security()))) == []
