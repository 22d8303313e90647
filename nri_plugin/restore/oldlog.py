"""The container's log so far: the checkpoint's CRI log lines, put before the new container's own.

The file comes from the checkpoint, so only whole lines of the CRI log format pass, and only the last ones up to a cap
(kubernetes pkg/kubelet/kuberuntime/logs: ``<RFC3339Nano> <stdout|stderr> <F|P> <text>``; lines of at most 16 KiB).
"""

from __future__ import annotations

import re
from collections import deque

from shared.archive import CheckpointFiles

LINE = re.compile(
    rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d) (?:stdout|stderr) [FP](?::[\w:]*)? "
)
LINE_LIMIT_BYTES = 17 << 10


def log_lines(files: CheckpointFiles, member: str, cap_bytes: int) -> bytes:
    """The last lines of ``member`` that are CRI log lines, at most ``cap_bytes`` of them, in order."""
    kept: deque[bytes] = deque()
    size = 0
    with files.open(member) as source:
        length = files.size(member)
        if length > 2 * cap_bytes and source.seekable():
            source.seek(length - 2 * cap_bytes)
            source.readline(LINE_LIMIT_BYTES)
        while line := source.readline(LINE_LIMIT_BYTES):
            if not line.endswith(b"\n") or not LINE.match(line):
                continue
            kept.append(line)
            size += len(line)
            while size > cap_bytes:
                size -= len(kept.popleft())
    return b"".join(kept)
