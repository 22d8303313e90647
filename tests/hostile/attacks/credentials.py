"""More rights for the restored processes than the pod gives: capabilities, users, groups, confinement, limits."""

from __future__ import annotations

import struct

from shared.criu import criu_pb2 as pb
from shared.criu.capabilities import NAMES
from shared.spec import Capabilities
from tests.hostile.attack import Change, add, attack, twin
from tests.hostile.forgery import Forgery

DEFAULT = 0xA80425FB
"""What an ordinary container holds."""
SETS = {
    "permitted": "cap_prm",
    "effective": "cap_eff",
    "bounding": "cap_bnd",
    "inheritable": "cap_inh",
    "ambient": "cap_amb",
}
assert set(SETS) == set(Capabilities.__slots__)


def raised(sets: tuple[str, ...], bit: int) -> Change:
    def change(forgery: Forgery) -> None:
        for creds in forgery.creds():
            for each in sets:
                words = getattr(creds, SETS[each])
                words[bit // 32] |= 1 << bit % 32

    return change


for _bit, _name in enumerate(NAMES):
    if not DEFAULT >> _bit & 1:
        add(f"{_name} added to every set", "CapabilitiesExceed", raised(tuple(SETS), _bit))
for _set in SETS:
    add(f"CAP_SYS_ADMIN added to the {_set} set alone", "CapabilitiesExceed", raised((_set,), 21))
    add(f"CAP_CHOWN in the {_set} set of a pod that drops all", "CapabilitiesExceed", raised((_set,), 0), "restricted")
add("a capability that has no name yet", "CapabilitiesExceed", raised(tuple(SETS), 63))


@attack("every capability in the second process alone", "CapabilitiesExceed")
def _second(forgery: Forgery) -> None:
    creds = forgery.core(forgery.pids[-1]).thread_core.creds
    for each in SETS.values():
        getattr(creds, each)[:] = [0xFFFFFFFF, 0x1FF]


@attack("capability set of three words", "ImageDamaged")
def _three_words(forgery: Forgery) -> None:
    forgery.core().thread_core.creds.cap_eff.append(1)


@attack("credentials left out", "ImageDamaged")
def _no_creds(forgery: Forgery) -> None:
    forgery.core().thread_core.ClearField("creds")


@attack("credentials given twice in one message, the second time root's", "ImageDamaged", "user")
def _twice(forgery: Forgery) -> None:
    whole = forgery.contents()["checkpoint/core-1.img"]
    creds = pb.CredsEntry(uid=0, euid=0, suid=0, fsuid=0)
    again = pb.CoreEntry(thread_core=pb.ThreadCoreEntry(creds=creds)).SerializePartialToString()
    (size,) = struct.unpack_from("<I", whole, 8)
    forgery.raw("core-1.img", whole[:8] + struct.pack("<I", size + len(again)) + whole[12:] + again)


def _identity(field: str, value: int) -> Change:
    def change(forgery: Forgery) -> None:
        for creds in forgery.creds():
            setattr(creds, field, value)

    return change


def _left_out(field: str) -> Change:
    def change(forgery: Forgery) -> None:
        forgery.partial.add("core-1.img")
        forgery.core().thread_core.creds.ClearField(field)

    return change


for _field in ("uid", "euid", "suid", "fsuid", "gid", "egid", "sgid", "fsgid"):
    add(f"{_field} 0 in a pod of user 1000", "IdentityExceeds", _identity(_field, 0), "user")
    add(f"{_field} 1000 in a pod of root without rights", "IdentityExceeds", _identity(_field, 1000), "restricted")
    add(f"{_field} left out", "ImageDamaged", _left_out(_field))


@attack("group 0 beside the pod's", "IdentityExceeds", "user")
def _group(forgery: Forgery) -> None:
    for creds in forgery.creds():
        creds.groups.append(0)


@attack("no_new_privs dropped", "NoNewPrivilegesLost", "restricted")
def _privileges(forgery: Forgery) -> None:
    for creds in forgery.creds():
        creds.no_new_privs = 0


@attack("no_new_privs dropped from the last process", "NoNewPrivilegesLost", "restricted")
def _privileges_of_last(forgery: Forgery) -> None:
    forgery.core(forgery.pids[-1]).thread_core.creds.no_new_privs = 0


def _securebits(bits: int) -> Change:
    return _identity("secbits", bits)


for _bit, _name in enumerate(("NOROOT", "NOROOT_LOCKED", "NO_SETUID_FIXUP", "NO_SETUID_FIXUP_LOCKED")):
    add(f"securebit {_name}", "SecurebitsExceed", _securebits(1 << _bit), "restricted")


@twin("securebit KEEP_CAPS, which anybody may set", "restricted")
def _keep_caps(forgery: Forgery) -> None:
    _securebits(1 << 4)(forgery)


@attack("an AppArmor stack of its own", "FieldExceeds")
def _apparmor(forgery: Forgery) -> None:
    for creds in forgery.creds():
        creds.apparmor_data = b"\x08\x01x"


@attack("a label for the sockets it makes", "FieldExceeds")
def _sockcreate(forgery: Forgery) -> None:
    for creds in forgery.creds():
        creds.lsm_sockcreate = b"system_u:system_r:spc_t:s0"


def _limit(number: int, value: int) -> Change:
    def change(forgery: Forgery) -> None:
        for pid in forgery.pids:
            limit = forgery.core(pid).tc.rlimits.rlimits[number]
            limit.cur = limit.max = value

    return change


@attack("limits left out, so that CRIU's own stay", "RlimitExceeds", "restricted")
def _no_limits(forgery: Forgery) -> None:
    for pid in forgery.pids:
        del forgery.core(pid).tc.rlimits.rlimits[1:]


@attack("ten thousand limits", "ImageDamaged")
def _many_limits(forgery: Forgery) -> None:
    forgery.core().tc.rlimits.rlimits.extend([forgery.core().tc.rlimits.rlimits[0]] * 10_000)


@twin(
    "spared by the OOM killer more than the pod, which is put right",
    proof='test "$(cat /proc/[0-9]*/oom_score_adj | sort -u)" = 1000',
)
def _spared(forgery: Forgery) -> None:
    for pid in forgery.pids:
        forgery.core(pid).tc.oom_score_adj = 1


def _scheduler(policy: int, priority: int, nice: int = 0) -> Change:
    def change(forgery: Forgery) -> None:
        core = forgery.core().thread_core
        core.sched_policy, core.sched_prio, core.sched_nice = policy, priority, nice

    return change


add("scheduled first in, first out", "SchedulerExceeds", _scheduler(1, 99))
add("scheduled round robin", "SchedulerExceeds", _scheduler(2, 1))
add("scheduled by deadline", "FieldExceeds", _scheduler(6, 0))
add("scheduled by a class that nobody knows", "FieldExceeds", _scheduler(77, 0))
add("nice -20", "SchedulerExceeds", _scheduler(0, 0, -20))


@twin("a batch job that is nice")
def _batch(forgery: Forgery) -> None:
    _scheduler(3, 0, 10)(forgery)


@twin("limits lower than the pod's")
def _low(forgery: Forgery) -> None:
    _limit(7, 512)(forgery)


@twin("a process that gave up all its capabilities")
def _gave_up(forgery: Forgery) -> None:
    creds = forgery.core(forgery.pids[-1]).thread_core.creds
    for each in SETS.values():
        getattr(creds, each)[:] = [0, 0]
