"""Registers of the restored threads, for each kind of processor that CRIU knows.

CRIU puts them into a signal frame in the process's own memory and ends with rt_sigreturn(2) (criu/pie/restorer.c,
rst_sigreturn), which any process may do by itself with any frame: the kernel takes no more from it than user mode may
have (arch/*/kernel/signal*.c, restore_sigcontext). So values are free. How many there are is not: CRIU copies lists
into fields of a fixed size, in part without counting (criu/arch/*/crtools.c), which would copy CRIU's own memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf.message import Message

from shared.criu.criu_pb2 import CoreEntry
from shared.errors import Refused
from shared.judge.rules import Fields, Rule, bounded, derived, field_refused, free

_LOADED: Final = "rt_sigreturn loads it, and the kernel takes no more than user mode may have"
_OWN_MEMORY: Final = "the kernel writes there as the process, in its own memory, when the thread ends"
_SELECTED: Final = "the kernel checks descriptors that a process gives itself (set_thread_area)"
_COUNT: Final = "CRIU copies a fixed number of them, and that many must be there"
_PART: Final = "its own fields have rules"
_CET_MAX: Final = 0b11
"""linux asm/prctl.h: ARCH_SHSTK_SHSTK, ARCH_SHSTK_WRSS."""


def _registers(*names: str) -> dict[str, Rule]:
    return {name: free(_LOADED) for name in names}


def _lists(*names: str) -> dict[str, Rule]:
    return {name: bounded(_COUNT) for name in names}


def _thread(*parts: str, tls: bool = True) -> dict[str, Rule]:
    found = {"clear_tid_addr": free(_OWN_MEMORY)} | {part: bounded(_PART) for part in parts}
    return found | ({"tls": free(_LOADED)} if tls else {})


_MIPS: Final = tuple(f"r{number}" for number in range(32))

FIELDS: Final[Fields] = {
    "ThreadInfoX86": _thread("gpregs", "fpregs", "tls", tls=False),
    "UserX86RegsEntry": {
        **_registers(
            "r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di", "orig_ax",
            "ip", "cs", "flags", "sp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
        ),
        "mode": bounded("it is 1 for 64 bits, 2 for 32", lambda mode: mode in (1, 2)),
    },
    "UserX86FpregsEntry": {
        **_registers("cwd", "swd", "twd", "fop", "rip", "rdp", "mxcsr", "mxcsr_mask"),
        **_lists("st_space", "xmm_space"),
        "padding": derived("CRIU does not read it, and it is left out"),
        "xsave": bounded(_PART),
    },
    "UserX86XsaveEntry": {
        **_registers("xstate_bv"),
        **_lists("ymmh_space", "bndreg_state", "bndcsr_state", "opmask_reg", "zmm_upper", "hi16_zmm", "pkru"),
        "cet": bounded(_PART),
    },
    "UserX86CetEntry": {
        "cet": bounded("a process has shadow stacks, may write to them, or neither", lambda cet: cet <= _CET_MAX),
        "ssp": free("CRIU looks up an area of the process there, and ends without one"),
    },
    "UserDescT": {
        name: free(_SELECTED)
        for name in (
            "entry_number", "base_addr", "limit", "seg_32bit", "contents_h", "contents_l", "read_exec_only",
            "limit_in_pages", "seg_not_present", "usable",
        )
    },
    "ThreadInfoAarch64": _thread("gpregs", "fpsimd", "pac_keys"),
    "UserAarch64RegsEntry": {**_lists("regs"), **_registers("sp", "pc", "pstate")},
    "UserAarch64FpsimdContextEntry": {**_lists("vregs"), **_registers("fpsr", "fpcr")},
    "PacKeys": {"pac_address_keys": bounded(_PART), "pac_generic_keys": bounded(_PART)},
    "PacAddressKeys": {
        name: free("a process signs its own pointers with it")
        for name in (
            "apiakey_lo", "apiakey_hi", "apibkey_lo", "apibkey_hi", "apdakey_lo", "apdakey_hi", "apdbkey_lo",
            "apdbkey_hi", "pac_enabled_key",
        )
    },
    "PacGenericKeys": {
        "apgakey_lo": free("a process signs its own pointers with it"),
        "apgakey_hi": free("a process signs its own pointers with it"),
    },
    "ThreadInfoArm": _thread("gpregs", "fpstate"),
    "UserArmRegsEntry": _registers(
        *(f"r{number}" for number in range(11)), "fp", "ip", "sp", "lr", "pc", "cpsr", "orig_r0"
    ),
    "UserArmVfpstateEntry": {**_lists("vfp_regs"), **_registers("fpscr", "fpexc", "fpinst", "fpinst2")},
    "ThreadInfoLoongarch64": _thread("gpregs", "fpregs"),
    "UserLoongarch64GpregsEntry": {**_lists("regs"), **_registers("pc")},
    "UserLoongarch64FpregsEntry": {**_lists("regs"), **_registers("fcc", "fcsr")},
    "ThreadInfoMips": _thread("gpregs", "fpregs"),
    "UserMipsRegsEntry": _registers(*_MIPS, "lo", "hi", "cp0_epc", "cp0_badvaddr", "cp0_status", "cp0_cause"),
    "UserMipsFpregsEntry": _registers(*_MIPS, "lo", "hi", "fpu_fcr31", "fpu_id"),
    "ThreadInfoPpc64": _thread("gpregs", "fpstate", "vrstate", "vsxstate", "tmstate", tls=False),
    "UserPpc64RegsEntry": {
        **_lists("gpr"),
        **_registers("nip", "msr", "orig_gpr3", "ctr", "link", "xer", "ccr", "trap", "texasr", "tfhar", "tfiar"),
    },
    "UserPpc64FpstateEntry": _lists("fpregs"),
    "UserPpc64VrstateEntry": {**_lists("vrregs"), **_registers("vrsave")},
    "UserPpc64VsxstateEntry": _lists("vsxregs"),
    "UserPpc64TmRegsEntry": {name: bounded(_PART) for name in ("gpregs", "fpstate", "vrstate", "vsxstate")},
    "ThreadInfoRiscv64": _thread("gpregs", "fpsimd"),
    "UserRiscv64RegsEntry": _registers(
        "pc", "ra", "sp", "gp", "tp",
        *(f"t{number}" for number in range(7)), *(f"s{number}" for number in range(12)),
        *(f"a{number}" for number in range(8)),
    ),
    "UserRiscv64DExtEntry": {**_lists("f"), **_registers("fcsr")},
    "ThreadInfoS390": _thread("gpregs", "fpregs", "vxrs_low", "vxrs_high", "gs_cb", "gs_bc", "ri_cb", tls=False),
    "UserS390RegsEntry": {
        **_registers("psw_mask", "psw_addr", "orig_gpr2", "system_call"),
        **_lists("gprs", "acrs"),
    },
    "UserS390VxrsLowEntry": _lists("regs"),
    "UserS390VxrsHighEntry": _lists("regs"),
    "UserS390FpregsEntry": {**_registers("fpc"), **_lists("fprs")},
    "UserS390GsCbEntry": _lists("regs"),
    "UserS390RiEntry": {**_registers("ri_on"), **_lists("regs")},
}  # fmt: skip

THREAD_INFO: Final[Mapping[str, str]] = {
    "x86_64": "thread_info",
    "arm": "ti_arm",
    "aarch64": "ti_aarch64",
    "ppc64": "ti_ppc64",
    "s390": "ti_s390",
    "mips": "ti_mips",
    "loongarch64": "ti_loongarch64",
    "riscv64": "ti_riscv64",
}
"""Field of a core image that has the registers, by machine."""

_COUNTS: Final[Mapping[tuple[str, str], frozenset[int]]] = {
    (message, field): frozenset(counts)
    for message, field, *counts in (
        # criu/arch/x86/crtools.c, valid_xsave_frame and assign_xsave: what the processor does not have is left out
        ("ThreadInfoX86", "tls", 0, 3),
        ("UserX86FpregsEntry", "st_space", 32),
        ("UserX86FpregsEntry", "xmm_space", 64),
        ("UserX86XsaveEntry", "ymmh_space", 0, 64),
        ("UserX86XsaveEntry", "bndreg_state", 0, 8),
        ("UserX86XsaveEntry", "bndcsr_state", 0, 8),
        ("UserX86XsaveEntry", "opmask_reg", 0, 8),
        ("UserX86XsaveEntry", "zmm_upper", 0, 64),
        ("UserX86XsaveEntry", "hi16_zmm", 0, 128),
        ("UserX86XsaveEntry", "pkru", 0, 2),
        ("UserAarch64RegsEntry", "regs", 31),
        ("UserAarch64FpsimdContextEntry", "vregs", 64),
        ("UserArmVfpstateEntry", "vfp_regs", 32),
        ("UserLoongarch64GpregsEntry", "regs", 32),
        ("UserLoongarch64FpregsEntry", "regs", 32),
        ("UserPpc64RegsEntry", "gpr", 32),
        ("UserPpc64FpstateEntry", "fpregs", 33),
        ("UserPpc64VrstateEntry", "vrregs", 66),
        ("UserPpc64VsxstateEntry", "vsxregs", 32),
        ("UserRiscv64DExtEntry", "f", 32),
        ("UserS390RegsEntry", "gprs", 16),
        ("UserS390RegsEntry", "acrs", 16),
        ("UserS390VxrsLowEntry", "regs", 16),
        ("UserS390VxrsHighEntry", "regs", 32),
        ("UserS390FpregsEntry", "fprs", 16),
        ("UserS390GsCbEntry", "regs", 4),
        ("UserS390RiEntry", "regs", 8),
    )
}
_LISTS: Final[Mapping[str, tuple[tuple[str, frozenset[int]], ...]]] = {
    message: tuple((field, counts) for (owner, field), counts in _COUNTS.items() if owner == message)
    for message, _ in _COUNTS
}


def check_registers(core: CoreEntry, machine: str, image: str) -> None:
    """Raises Refused("FieldExceeds") unless a living thread has whole registers of this machine, and of no other."""
    wanted = THREAD_INFO[machine]
    for field in THREAD_INFO.values():
        if core.HasField(field) != (field == wanted):
            what = "no registers of" if field == wanted else "registers of another processor than"
            raise Refused(
                "FieldExceeds",
                f"{image} has {what} {machine}, the processor that it names; CRIU would end without them, so take a "
                "new checkpoint",
            )
    _check_lists(getattr(core, wanted), image)


def _check_lists(message: Message, image: str) -> None:
    for field, counts in _LISTS.get(message.DESCRIPTOR.name, ()):
        found = len(getattr(message, field))
        if found not in counts:
            raise field_refused(image, message, field, f"{found} entries", _COUNT)
    for part in _parts(message):
        _check_lists(part, image)


def _parts(message: Message) -> Iterable[Any]:
    names = _PARTS.get(message.DESCRIPTOR.name)
    if names is None:
        fields = message.DESCRIPTOR.fields
        names = _PARTS[message.DESCRIPTOR.name] = tuple(
            field.name for field in fields if field.message_type is not None and not field.is_repeated
        )
    return [getattr(message, name) for name in names if message.HasField(name)]


_PARTS: Final[dict[str, tuple[str, ...]]] = {}
"""Fields of a message that are one message each; filled as messages are met."""
