"""What of the processor a dump needs: by CRIU's record, its threads' registers, and its programs.

Sources: criu/arch/x86/cpu.c (which instructions CRIU compares), compel/arch/x86 asm/cpu.h (words and bits, an ABI
of the image), linux arch/x86/include/asm/cpufeatures.h (names in /proc/cpuinfo), Intel SDM vol. 1 ch. 13 (XSAVE state
components), x86-64 psABI 1.0 table 3.1 (micro-architecture levels).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shared.criu.criu_pb2 import CoreEntry, CpuinfoEntry
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind

_INSTRUCTIONS: Final[dict[int, dict[int, str]]] = {
    0: {8: "cx8", 15: "cmov", 19: "clflush", 23: "mmx", 24: "fxsr", 25: "sse", 26: "sse2"},
    1: {11: "syscall", 22: "mmxext", 27: "rdtscp", 30: "3dnowext", 31: "3dnow"},
    4: {
        0: "pni",
        1: "pclmulqdq",
        9: "ssse3",
        13: "cx16",
        19: "sse4_1",
        20: "sse4_2",
        22: "movbe",
        23: "popcnt",
        25: "aes",
        26: "xsave",
        28: "avx",
        29: "f16c",
        30: "rdrand",
    },
    6: {5: "abm", 6: "sse4a", 7: "misalignsse", 8: "3dnowprefetch", 11: "xop", 16: "fma4", 21: "tbm"},
    9: {
        0: "fsgsbase",
        3: "bmi1",
        4: "hle",
        5: "avx2",
        8: "bmi2",
        9: "erms",
        11: "rtm",
        14: "mpx",
        16: "avx512f",
        17: "avx512dq",
        18: "rdseed",
        19: "adx",
        23: "clflushopt",
        26: "avx512pf",
        27: "avx512er",
        28: "avx512cd",
        29: "sha_ni",
        30: "avx512bw",
        31: "avx512vl",
    },
    10: {0: "xsaveopt", 1: "xsavec", 2: "xgetbv1"},
    11: {
        1: "avx512vbmi",
        6: "avx512_vbmi2",
        8: "gfni",
        9: "vaes",
        10: "vpclmulqdq",
        11: "avx512_vnni",
        12: "avx512_bitalg",
        14: "avx512_vpopcntdq",
        22: "rdpid",
    },
    13: {0: "clzero"},
    18: {2: "avx512_4vnniw", 3: "avx512_4fmaps"},
}
"""Word and bit of cpuinfo.img to the flag; only instructions, as CRIU's default comparison."""
_STATES: Final = {2: "avx", 5: "avx512f", 6: "avx512f", 7: "avx512f", 11: "user_shstk", 18: "amx_tile"}
"""Component of the extended state to the flag of the processor that has it.

Not PKRU (9): the kernel sets it for every thread, and dumps that have it restore where /proc/cpuinfo has no pku.
"""
_V2: Final = frozenset({"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"})
_V3: Final = _V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
_V4: Final = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
LEVELS: Final = {"x86-64": frozenset[str](), "x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}


@dataclass(frozen=True, slots=True)
class CpuNeeds:
    flags: frozenset[str]
    """As /proc/cpuinfo names them."""
    recorded: bool
    """Whether the dump has CRIU's own record, which covers everything."""
    xsave_bytes: int | None = None
    """Of the extended state, where it is recorded; it must be the same (criu/arch/x86/cpu.c)."""


def dump_needs(images: ImageDirectory, dump: Dump) -> CpuNeeds:
    """Of an x86-64 dump; of another one nothing is known. Raises CheckpointInvalid."""
    if dump.root.machine != "x86_64":
        return CpuNeeds(frozenset(), recorded=False)
    if Kind.CPUINFO.file() not in images:
        return CpuNeeds(_used(images, dump), recorded=False)
    record = images.one(Kind.CPUINFO, CpuinfoEntry)
    xsave = next((cpu.xsave_size for cpu in record.x86_entry if cpu.xsave_size), None)
    return CpuNeeds(_recorded(record) | _used(images, dump), recorded=True, xsave_bytes=xsave)


def level_needs(levels: Iterable[str | None]) -> frozenset[str]:
    """What programs of these levels need."""
    return frozenset[str]().union(*(LEVELS[level] for level in levels if level))


def _recorded(entry: CpuinfoEntry) -> frozenset[str]:
    return frozenset(
        name
        for cpu in entry.x86_entry
        for word, bits in _INSTRUCTIONS.items()
        if word < len(cpu.capability)
        for bit, name in bits.items()
        if cpu.capability[word] >> bit & 1
    )


def _used(images: ImageDirectory, dump: Dump) -> frozenset[str]:
    """By what threads had in their registers when they were frozen."""
    found: set[str] = set()
    for task in dump.tasks:
        for thread in task.threads:
            core = images.one(Kind.CORE, CoreEntry, thread.tid)
            state = core.thread_info.fpregs.xsave.xstate_bv
            found.update(name for bit, name in _STATES.items() if state >> bit & 1)
    return frozenset(found)
