"""What each restored thread may do against what the live spec lets the container's own process become.

Sources: capabilities(7) (execve, no_new_privs), linux security/commoncap.c, runc libcontainer/init_linux.go
(finalizeNamespace), CRIU criu/cr-restore.c (restore of creds_entry), setrlimit(2), apparmor(7), selinux(8).
"""

from __future__ import annotations

from shared.compare.pod_identity import PodIdentity
from shared.criu.capabilities import capability_names
from shared.criu.dump import Dump
from shared.criu.tasks import Task, Thread
from shared.errors import Refused
from shared.spec import RuntimeSpec

SECCOMP_DISABLED = 0
"""prctl(2) PR_GET_SECCOMP: 1 is strict mode, which allows less than any filter."""
SECBIT_KEEP_CAPS = 1 << 4
"""capabilities(7): the only one of the securebits that a process may set without CAP_SETPCAP."""
RLIMITS = (
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
)
"""By number; linux/asm-generic/resource.h."""


def check_credentials(dump: Dump, dumped: RuntimeSpec, live: RuntimeSpec, identity: PodIdentity) -> None:
    """Every thread of the dump against the live spec; each refusal names the process.

    Raises Refused: CapabilitiesExceed, IdentityExceeds, NoNewPrivilegesLost, SeccompLost, SecurebitsExceed,
    RlimitExceeds, LsmLabelDiffers.
    """
    gids = {live.gid, *live.additional_gids}
    if not identity.group_fixed and live.gid == 0:
        gids.add(dumped.gid)
    groups = gids if identity.groups_fixed else gids | set(dumped.additional_gids)
    for task in dump.tasks:
        _check_limits(task, live)
        for thread in task.threads:
            _check_capabilities(task, thread, live)
            _check_identity(task, thread, live, gids, groups)
            _check_confinement(task, thread, live)


def _check_confinement(task: Task, thread: Thread, live: RuntimeSpec) -> None:
    credentials = thread.credentials
    if live.no_new_privileges and not credentials.no_new_privs:
        raise Refused(
            "NoNewPrivilegesLost",
            f"process {name(task)} of the checkpoint may gain privileges, the pod sets "
            "allowPrivilegeEscalation: false; take the checkpoint from a container that sets it too",
        )
    if live.seccomp and thread.seccomp_mode == SECCOMP_DISABLED:
        raise Refused(
            "SeccompLost",
            f"process {name(task)} of the checkpoint runs without a seccomp filter, the pod asks for one; "
            "set seccompProfile: Unconfined if that is meant, or take a new checkpoint",
        )
    bits = credentials.securebits & ~SECBIT_KEEP_CAPS
    if bits and "CAP_SETPCAP" not in live.capabilities.bounding:
        raise Refused(
            "SecurebitsExceed",
            f"process {name(task)} of the checkpoint has the securebits {bits:#x}, which take CAP_SETPCAP to set and "
            "the pod does not grant it; add it to the container's capabilities if that is meant",
        )
    for label in (live.apparmor_profile, live.selinux_label):
        if label and label != "unconfined" and credentials.lsm_profile != label:
            raise Refused(
                "LsmLabelDiffers",
                f"process {name(task)} of the checkpoint runs under the security label "
                f"{credentials.lsm_profile or 'none'}, the pod under {label}; a restore keeps the label, so take the "
                "checkpoint on a node that confines containers in the same way",
            )


def _check_capabilities(task: Task, thread: Thread, live: RuntimeSpec) -> None:
    """With no_new_privs an execve gains nothing: root keeps what it was given, others only their ambient set."""
    credentials, sets = thread.credentials, live.capabilities
    if not live.no_new_privileges:
        reachable = sets.bounding | sets.permitted
    elif live.uid == 0:
        reachable = sets.permitted
    else:
        reachable = sets.ambient
    held = credentials.permitted | credentials.effective | credentials.ambient
    for verb, dumped, allowed in (
        ("holds", held, reachable),
        ("could pass on", credentials.inheritable, reachable | sets.inheritable),
        ("could gain", credentials.bounding, sets.bounding),
    ):
        if more := sorted(capability_names(dumped) - allowed):
            raise Refused(
                "CapabilitiesExceed",
                f"process {name(task)} of the checkpoint {verb} {_few(more)}, which the pod does not grant; "
                "add that to the container's securityContext.capabilities if it is meant",
            )


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more capabilities"


def _check_identity(task: Task, thread: Thread, live: RuntimeSpec, gids: set[int], groups: set[int]) -> None:
    """A process may have any uid and gid that its container could have switched to itself."""
    credentials = thread.credentials
    bound = live.uid != 0 and live.no_new_privileges
    other_uids = {credentials.uid, credentials.euid, credentials.suid, credentials.fsuid} - {live.uid}
    if other_uids and (bound or "CAP_SETUID" not in live.capabilities.bounding):
        raise Refused(
            "IdentityExceeds",
            f"process {name(task)} of the checkpoint runs as uid {min(other_uids)}, the pod's container as {live.uid}; "
            "a container with these rights could not have become that itself",
        )
    other_gids = {credentials.gid, credentials.egid, credentials.sgid, credentials.fsgid} - gids
    other_gids |= set(credentials.groups) - groups
    if other_gids and (bound or "CAP_SETGID" not in live.capabilities.bounding):
        raise Refused(
            "IdentityExceeds",
            f"process {name(task)} of the checkpoint belongs to group {min(other_gids)}, the pod's container only to "
            f"{', '.join(map(str, sorted(groups)))}; name the group in runAsGroup, fsGroup or supplementalGroups if "
            "that is meant",
        )


def _check_limits(task: Task, live: RuntimeSpec) -> None:
    """Only a hard limit binds: the soft one may be raised up to it, beyond it with CAP_SYS_RESOURCE alone."""
    if "CAP_SYS_RESOURCE" in live.capabilities.bounding:
        return
    asked = {limit.type: limit.hard for limit in live.rlimits}
    for kind, limit in zip(RLIMITS, task.limits, strict=False):
        if kind in asked and limit.hard > asked[kind]:
            raise Refused(
                "RlimitExceeds",
                f"process {name(task)} of the checkpoint has {kind} {_limit(limit.hard)}, the pod's container "
                f"{_limit(asked[kind])}; raise the runtime's limit or take the checkpoint under this one",
            )


def _limit(value: int) -> str:
    return "unlimited" if value == (1 << 64) - 1 else str(value)


def name(task: Task) -> str:
    """How a sentence names a process: its number in the container, and its command."""
    return f"{task.pid} ({task.comm})"
