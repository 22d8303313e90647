"""The machine a dump was made on and how long it took, as CRIU wrote both beside the images. Untrusted, and optional.

Sources: criu/crtools.c ("Running on …", from uname(2)), criu/arch/x86/cpu.c ("x86_family …"), images/stats.proto,
criu/stats.c, criu/include/magic.h (service images have IMG_SERVICE_MAGIC).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from shared.archive import CheckpointFiles
from shared.criu.criu_pb2 import StatsEntry

_LOGS: Final = ("dump.log", "checkpoint/dump.log")
_LOG_BYTES: Final = 256 << 10
_RUNNING_ON: Final = re.compile(
    rb"Running on [!-~]{1,64} Linux (?P<release>[0-9][!-~]{0,127}) [ -~]{0,200}? (?P<machine>[a-z0-9_]{2,20})$",
    re.MULTILINE,
)
_CPU: Final = re.compile(rb"cpu: x86_family \d+ x86_vendor_id [!-~]{1,16} x86_model_id ([ -~]{1,64})$", re.MULTILINE)
_STATS: Final = ("stats-dump", "checkpoint/stats-dump")
_STATS_HEADER: Final = struct.pack("<II", 0x55105940, 0x57093306)
_STATS_BYTES_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class DumpHost:
    """What is not recorded is None."""

    kernel: str | None
    """Release, as uname -r says."""
    machine: str | None
    """As uname -m says."""
    cpu: str | None
    """The processor's name."""
    frozen_s: float | None
    """How long the container stood still."""
    memory_written_s: float | None


def read_dump_host(files: CheckpointFiles) -> DumpHost:
    """Raises only what reading the archive raises; what is malformed counts as not recorded."""
    log = b""
    for name in _LOGS:
        if name in files:
            with files.open(name) as file:
                log = file.read(_LOG_BYTES)
            break
    host, cpu = _RUNNING_ON.search(log), _CPU.search(log)
    frozen_s, memory_written_s = _stats(files)
    return DumpHost(
        kernel=host["release"].decode() if host else None,
        machine=host["machine"].decode() if host else None,
        cpu=" ".join(cpu[1].decode().split()) if cpu else None,
        frozen_s=frozen_s,
        memory_written_s=memory_written_s,
    )


def _stats(files: CheckpointFiles) -> tuple[float | None, float | None]:
    name = next((name for name in _STATS if name in files and files.size(name) <= _STATS_BYTES_MAX), None)
    content = files.read(name, _STATS_BYTES_MAX) if name else b""
    start = len(_STATS_HEADER) + 4
    if not content.startswith(_STATS_HEADER) or len(content) < start:
        return None, None
    try:
        stats = StatsEntry.FromString(content[start:])
    except DecodeError:
        return None, None
    if not stats.HasField("dump"):
        return None, None
    return stats.dump.frozen_time / 1e6, stats.dump.memwrite_time / 1e6
