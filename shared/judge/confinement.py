"""What keeps the live container's processes from rights that their credentials alone would let them use.

Two things CRIU up to 4.2 neither dumps nor restores. Landlock domains: no runtime gives any; what a program forbade
itself by one it may do again after a restore, within what the pod gives. Keyrings: processes come back without what
theirs held, and with the session keyring of the program that ran CRIU, where runc's init would have joined a new one
(libcontainer/standard_init_linux.go); so that program gets one first (nri_plugin/restore/own_root.py).
Sources: prctl(2) (PR_SET_NO_NEW_PRIVS, PR_SET_SECUREBITS), seccomp(2), personality(2), apparmor(7), selinux(8), CRIU
criu/cr-restore.c, criu/seccomp.c, criu/lsm.c; CVE-2019-19921's lesson that labels must be checked, not assumed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from shared.criu.dump import Dump
from shared.criu.seccomp_filters import MODE_FILTER, shares_filters
from shared.criu.tasks import Task, Thread
from shared.errors import Refused
from shared.judge.naming import name
from shared.judge.seccomp import Chains, exceeding
from shared.spec import RuntimeSpec

SECCOMP_DISABLED = 0
SECBIT_KEEP_CAPS = 1 << 4
"""capabilities(7): the only one of the securebits that a process may set without CAP_SETPCAP."""
PERSONALITIES = frozenset({0x0, 0x0008, 0x20000, 0x20008})
"""What the runtimes' default profile lets personality(2) set: Linux, 32 bits, uname as 2.6."""
_SYSTEM_CALLS_SHOWN = 4


def confinement_refusals(dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """NoNewPrivilegesLost, SeccompLost, SeccompExceeds, SecurebitsExceed, LsmLabelDiffers, PersonalityExceeds."""
    chains = Chains(dump.filters)
    for task in dump.tasks:
        if live.seccomp and task.alive and task.personality not in PERSONALITIES:
            yield Refused(
                "PersonalityExceeds",
                f"process {name(task)} of the checkpoint has the personality {task.personality:#x}, which the pod's "
                "seccomp profile does not let it set; take a new checkpoint under that profile",
            )
        for thread in task.threads:
            yield from _privileges(task, thread, live)
            yield from _labels(task, thread, live)
        for thread in task.threads[:1] if shares_filters(task, dump.filters) else task.threads:
            yield from _filters(dump, task, thread, live, chains)


def _privileges(task: Task, thread: Thread, live: RuntimeSpec) -> Iterator[Refused]:
    credentials = thread.credentials
    if live.no_new_privileges and not credentials.no_new_privs:
        yield Refused(
            "NoNewPrivilegesLost",
            f"process {name(task)} of the checkpoint may gain privileges, the pod sets "
            "allowPrivilegeEscalation: false; take the checkpoint from a container that sets it too",
        )
    bits = credentials.securebits & ~SECBIT_KEEP_CAPS
    if bits and "CAP_SETPCAP" not in live.capabilities.bounding:
        yield Refused(
            "SecurebitsExceed",
            f"process {name(task)} of the checkpoint has the securebits {bits:#x}, which take CAP_SETPCAP to set and "
            "the pod does not grant it; add it to the container's capabilities if that is meant",
        )


def _labels(task: Task, thread: Thread, live: RuntimeSpec) -> Iterator[Refused]:
    credentials = thread.credentials
    for label in (live.apparmor_profile, live.selinux_label):
        if label and label != "unconfined" and credentials.lsm_profile != label:
            yield Refused(
                "LsmLabelDiffers",
                f"process {name(task)} of the checkpoint runs under the security label "
                f"{credentials.lsm_profile or 'none'}, the pod under {label}; a restore keeps the label, so take the "
                "checkpoint on a node that confines containers in the same way",
            )
    if credentials.apparmor_stack or credentials.lsm_socket_label:
        yield Refused(
            "LsmLabelDiffers",
            f"process {name(task)} of the checkpoint has security labels of its own making (a stack of AppArmor "
            "profiles, or a label for its sockets), which no pod gives; take the checkpoint without them",
        )


def _filters(dump: Dump, task: Task, thread: Thread, live: RuntimeSpec, chains: Chains) -> Iterator[Refused]:
    if not live.seccomp:
        return
    if thread.seccomp_mode == SECCOMP_DISABLED:
        yield Refused(
            "SeccompLost",
            f"process {name(task)} of the checkpoint runs without a seccomp filter, the pod asks for one; "
            "set seccompProfile: Unconfined if that is meant, or take a new checkpoint",
        )
    last = thread.seccomp_filter or 0
    if live.seccomp_profile is None or thread.seccomp_mode != MODE_FILTER or not chains.is_new(last):
        return
    more = exceeding(dump.filters, last, live.seccomp_profile)
    if calls := list(itertools.islice(more, _SYSTEM_CALLS_SHOWN)):
        etc = " and more" if next(more, None) else ""
        yield Refused(
            "SeccompExceeds",
            f"the seccomp filter of process {name(task)} of the checkpoint allows {', '.join(calls)}{etc}, which the "
            "pod's profile does not; take the checkpoint under that profile, or name the checkpoint's in the pod's "
            "seccompProfile",
        )
