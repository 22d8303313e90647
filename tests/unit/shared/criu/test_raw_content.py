"""Messages with raw bytes behind them."""

from __future__ import annotations

from shared.criu.criu_pb2 import PipeDataEntry
from shared.criu.images import ImageDirectory, Kind
from shared.criu.raw_content import with_content
from tests.hostile.generator.layout import join
from tests.hostile.generator.sample import InMemory


def size(entry: PipeDataEntry) -> int:
    return entry.handle_bytes


def test_messages_stay_when_the_checkpoint_is_closed() -> None:
    """What takes the live pod is judged later."""
    content = join("pipes-data.img", [PipeDataEntry(pipe_id=4, handle_bytes=3), b"abc"])
    with InMemory({"checkpoint/pipes-data.img": content}) as files:
        images = ImageDirectory(files, "checkpoint")
        found = list(with_content(images, Kind.PIPES_DATA, PipeDataEntry, size))
    assert [(entry.pipe_id, content[offset:]) for entry, offset in found] == [(4, b"abc")]
    assert list(with_content(images, Kind.PIPES_DATA, PipeDataEntry, size)) == found
    assert list(with_content(images.copied(), Kind.PIPES_DATA, PipeDataEntry, size)) == found
