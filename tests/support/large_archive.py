"""A sound checkpoint archive of any size that takes no space: its memory pages are a hole in the file."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import cast

from shared.criu import criu_pb2
from tests.support.checkpoints import PAGE, SyntheticDump, containerd, member

_BLOCK = 512
_PAGES = "checkpoint/pages-1.img"


def write_large_archive(path: Path, memory_bytes: int) -> Path:
    """One process with ``memory_bytes`` of zeros, in containerd's layout."""
    dump = SyntheticDump.of_processes()
    cast(criu_pb2.MmEntry, dump.images["mm-1.img"][0]).vmas[0].end = 0x400000 + memory_bytes
    cast(criu_pb2.PagemapEntry, dump.images["pagemap-1.img"][1]).nr_pages = memory_bytes // PAGE
    with path.open("wb") as file:
        for name, content in containerd(dump).items():
            entry, _ = member(name, content)
            entry.size = memory_bytes if name == _PAGES else len(content)
            file.write(entry.tobuf(tarfile.GNU_FORMAT))
            if name != _PAGES:
                file.write(content)
            file.seek(file.tell() + (entry.size if name == _PAGES else 0) + -entry.size % _BLOCK)
        file.truncate(file.tell() + 2 * _BLOCK)
    return path
