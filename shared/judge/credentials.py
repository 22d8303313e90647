"""What each restored thread may do against what the live spec lets the container's own process become.

CRIU sets all of it as root, after the seccomp filters and before the thread runs (criu/pie/restorer.c, restore_creds).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from shared.criu.dump import Dump
from shared.errors import Refused
from shared.judge.capabilities import capability_refusals
from shared.judge.confinement import confinement_refusals
from shared.judge.identity import identity_refusals
from shared.judge.limits import limit_refusals
from shared.judge.pod_identity import PodIdentity
from shared.judge.rules import Fields, bounded, default
from shared.spec import RuntimeSpec

_USER: Final = "the container's process could have become this user by itself"
_GROUP: Final = "the container's process could have become this group by itself"
_SET: Final = "the container's process could have gained these capabilities by itself"
_SECUREBITS: Final = 0xFFF
"""linux/securebits.h: six pairs of a bit and its lock."""

FIELDS: Final[Fields] = {
    "CredsEntry": {
        **{name: bounded(_USER) for name in ("uid", "euid", "suid", "fsuid")},
        **{name: bounded(_GROUP) for name in ("gid", "egid", "sgid", "fsgid")},
        "groups": bounded(f"{_GROUP}; without any, CRIU gets the thread's own group, for it would skip an empty list"),
        **{name: bounded(_SET) for name in ("cap_inh", "cap_prm", "cap_eff", "cap_bnd", "cap_amb")},
        "secbits": bounded("others than SECBIT_KEEP_CAPS take CAP_SETPCAP", lambda bits: not bits & ~_SECUREBITS),
        "no_new_privs": bounded("it is set where the pod sets it; CRIU ends on more than 1", lambda value: value <= 1),
        "lsm_profile": bounded("it is the pod's label where the pod has one"),
        "lsm_sockcreate": default("no pod gives sockets a label of their own"),
        "apparmor_data": default("no pod stacks AppArmor profiles"),
    }
}


def credential_refusals(dump: Dump, dumped: RuntimeSpec, live: RuntimeSpec, identity: PodIdentity) -> Iterator[Refused]:
    """Every thread of the dump against the live spec; each refusal names the process."""
    return itertools.chain(
        capability_refusals(dump, live),
        identity_refusals(dump, dumped, live, identity),
        confinement_refusals(dump, live),
        limit_refusals(dump, live),
    )
