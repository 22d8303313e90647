"""The container's log so far: the checkpoint's CRI log lines, put before the new container's own.

A container that ran on after its checkpoint (the kubelet's always do) wrote further lines before the runtime copied the
log. The restored process writes those again, so everything later than the freeze is left out. An engine records when it
was asked for the checkpoint, some ten milliseconds before the freeze; a busy container still wrote lines in between,
and is told from its later self by the silence that the freeze itself was.
The file comes from the checkpoint, so only whole lines of the CRI log format pass, and only the last ones up to a cap
(kubernetes pkg/kubelet/kuberuntime/logs: ``<RFC3339Nano> <stdout|stderr> <F|P> <text>``; lines of at most 16 KiB).
"""

from __future__ import annotations

import re
from collections import deque
from datetime import UTC, datetime, timedelta

from shared.archive import CheckpointFiles

LINE = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d) (?:stdout|stderr) [FP](?::[\w:]*)? ")
LINE_LIMIT_BYTES = 17 << 10


def log_lines(
    files: CheckpointFiles, member: str, cap_bytes: int, *, asked_at: datetime | None, frozen_s: float | None
) -> bytes:
    """The last CRI log lines of ``member`` up to the freeze, at most ``cap_bytes`` of them, in order.

    ``asked_at`` is when the checkpoint was asked for, ``frozen_s`` how long it then kept the container still at least;
    without them everything, or everything until ``asked_at``, counts as written before.
    """
    kept: deque[bytes] = deque()
    size = 0
    last = asked_at
    silence = timedelta(seconds=frozen_s or 0)
    with files.open(member) as source:
        length = files.size(member)
        if length > 2 * cap_bytes and source.seekable():
            source.seek(length - 2 * cap_bytes)
            source.readline(LINE_LIMIT_BYTES)
        while line := source.readline(LINE_LIMIT_BYTES):
            found = LINE.match(line)
            if found is None or not line.endswith(b"\n"):
                continue
            if last is not None and (time := _time(found)) > last:
                if time - last >= silence:
                    break
                last = time
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
