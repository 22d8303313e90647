"""The container's log so far: the checkpoint's CRI log lines, put before the new container's own.

A container that ran on after its checkpoint (the kubelet's always do) wrote further lines before the runtime copied the
log. The restored process writes those again, so everything later than the checkpoint is left out. The file comes from
the checkpoint, so only whole lines of the CRI log format pass, and only the last ones up to a cap (kubernetes
pkg/kubelet/kuberuntime/logs: ``<RFC3339Nano> <stdout|stderr> <F|P> <text>``; lines of at most 16 KiB).
"""

from __future__ import annotations

import re
from collections import deque
from datetime import UTC, datetime

from shared.archive import CheckpointFiles

LINE = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d) (?:stdout|stderr) [FP](?::[\w:]*)? ")
LINE_LIMIT_BYTES = 17 << 10


def log_lines(files: CheckpointFiles, member: str, cap_bytes: int, *, until: datetime | None) -> bytes:
    """The last CRI log lines of ``member`` up to ``until``, at most ``cap_bytes`` of them, in order."""
    kept: deque[bytes] = deque()
    size = 0
    with files.open(member) as source:
        length = files.size(member)
        if length > 2 * cap_bytes and source.seekable():
            source.seek(length - 2 * cap_bytes)
            source.readline(LINE_LIMIT_BYTES)
        while line := source.readline(LINE_LIMIT_BYTES):
            found = LINE.match(line)
            if found is None or not line.endswith(b"\n"):
                continue
            if until is not None and _time(found) > until:
                continue
            kept.append(line)
            size += len(line)
            while size > cap_bytes:
                size -= len(kept.popleft())
    return b"".join(kept)


def _time(line: re.Match[bytes]) -> datetime:
    seconds, fraction, zone = (part.decode() for part in line.groups(default=b""))
    try:
        # datetime knows microseconds, the kubelet writes nanoseconds.
        return datetime.fromisoformat(f"{seconds}{fraction[:7]}{zone}")
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
