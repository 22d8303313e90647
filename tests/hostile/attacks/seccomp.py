"""A seccomp filter that is there and lets pass what the pod's profile does not."""

from __future__ import annotations

import struct

from shared.criu import criu_pb2 as pb
from tests.hostile.attack import Change, add, attack
from tests.hostile.forgery import Forgery

LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO, LOG, TRACE, NOTIFY = 0x7FFF0000, 0x00050001, 0x7FFC0000, 0x7FF00000, 0x7FC00000
X86_64 = 0xC000003E


def _program(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("<HBBI", *each) for each in instructions)


def _replaced(program: bytes) -> Change:
    def change(forgery: Forgery) -> None:
        (entry,) = forgery.image("seccomp.img")
        del entry.seccomp_filters[1:]
        entry.seccomp_filters[0].CopyFrom(pb.SeccompFilter(filter=program, flags=0))
        for core in forgery.cores():
            core.thread_core.seccomp_filter = 0

    return change


@attack("no filter any more", "SeccompLost", "restricted")
def _dropped(forgery: Forgery) -> None:
    for core in forgery.cores():
        core.thread_core.seccomp_mode = 0


@attack("no filter in the last process", "SeccompLost", "restricted")
def _dropped_in_last(forgery: Forgery) -> None:
    forgery.core(forgery.pids[-1]).thread_core.seccomp_mode = 0


for _name, _value in (("allows", ALLOW), ("logs", LOG), ("traces", TRACE), ("hands on", NOTIFY)):
    add(
        f"a filter that {_name} everything", "SeccompExceeds", _replaced(_program((RETURN, 0, 0, _value))), "restricted"
    )
add(
    "a filter that allows everything on the other architecture",
    "SeccompExceeds",
    _replaced(_program((LOAD, 0, 0, 4), (JUMP_EQUAL, 1, 0, X86_64), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ERRNO))),
    "restricted",
)
for _name, _number in (
    ("mount", 165),
    ("init_module", 175),
    ("kexec_load", 246),
    ("bpf", 321),
    ("unshare", 272),
    ("open_by_handle_at", 304),
    ("setns", 308),
    ("userfaultfd", 323),
    ("keyctl", 250),
):
    add(
        f"a filter that allows {_name} alone",
        "SeccompExceeds",
        _replaced(_program((LOAD, 0, 0, 0), (JUMP_EQUAL, 0, 1, _number), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ERRNO))),
        "restricted",
    )
add(
    "a filter that allows everything to who knows the word",
    "SeccompExceeds",
    _replaced(_program((LOAD, 0, 0, 16), (JUMP_EQUAL, 0, 1, 0x1337), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ERRNO))),
    "restricted",
)
add("a filter that jumps out of itself", "ImageDamaged", _replaced(_program((JUMP_EQUAL, 200, 200, 0))), "restricted")
add("a filter that never ends", "ImageDamaged", _replaced(_program((LOAD, 0, 0, 0))), "restricted")
add(
    "a filter with an instruction that no kernel takes",
    "ImageDamaged",
    _replaced(_program((0xFF, 0, 0, 0), (RETURN, 0, 0, ERRNO))),
    "restricted",
)


@attack("a personality that the profile forbids", "PersonalityExceeds", "restricted")
def _personality(forgery: Forgery) -> None:
    for pid in forgery.pids:
        forgery.core(pid).tc.personality = 0x0400000
