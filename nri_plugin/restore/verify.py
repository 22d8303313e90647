"""What CRIU would restore against what the live pod asks for. Nothing here changes anything; every rule may refuse.

``runc restore`` runs no runc init: user, capabilities, seccomp, no_new_privs, terminal and root flags of the restored
processes are those in the images, whatever the pod's security context says (runc libcontainer/criu_linux.go). So each
must be what the live OCI spec gives, or less.
"""

from __future__ import annotations

from collections.abc import Iterable

from shared.criu.capabilities import capability_names
from shared.criu.dump import Dump
from shared.criu.tasks import Task, Thread
from shared.errors import Refused
from shared.spec import RuntimeSpec

SECCOMP_FILTER = 2
"""prctl(2) PR_GET_SECCOMP."""


def check_command(dumped: RuntimeSpec, args: tuple[str, ...]) -> None:
    """Raises Refused("CommandDiffers"): the restored process is what was dumped, not what the pod would start."""
    if args and args != dumped.args:
        raise Refused(
            "CommandDiffers",
            f"the pod would run {_command(args)}, the checkpoint holds {_command(dumped.args)}; "
            "give the container that command and args, or leave both out where the checkpoint image has them",
        )


def _command(args: Iterable[str]) -> str:
    text = "[" + ", ".join(f'"{word}"' for word in args) + "]"
    return text if len(text) <= 300 else text[:297] + "..."


def check_spec(dumped: RuntimeSpec, live: RuntimeSpec) -> None:
    """The spec the container was dumped with against the one it is created with now.

    Raises Refused: TtyDiffers, UserDiffers, PrivilegedDiffers, ReadOnlyRootDiffers, NamespacesDiffer.
    """
    if dumped.terminal != live.terminal:
        raise Refused(
            "TtyDiffers",
            f"the checkpointed container ran {_with(dumped.terminal)} a terminal, the pod asks for one "
            f"{_with(live.terminal)}; set tty: {str(dumped.terminal).lower()} on the container",
        )
    if (dumped.uid, dumped.gid) != (live.uid, live.gid):
        raise Refused(
            "UserDiffers",
            f"the pod runs the container as {live.uid}:{live.gid}, the checkpointed processes run as "
            f"{dumped.uid}:{dumped.gid} and a restore cannot change that; set runAsUser: {dumped.uid} and "
            f"runAsGroup: {dumped.gid}, or take a new checkpoint",
        )
    if _privileged(dumped) != _privileged(live):
        raise Refused(
            "PrivilegedDiffers",
            f"the checkpointed container was {'' if _privileged(dumped) else 'not '}privileged, the pod's is "
            f"{'' if _privileged(live) else 'not '}; set privileged: {str(_privileged(dumped)).lower()}",
        )
    if dumped.root_readonly != live.root_readonly:
        raise Refused(
            "ReadOnlyRootDiffers",
            f"the checkpointed container's root was {'read-only' if dumped.root_readonly else 'writable'}, the pod "
            f"asks for the opposite; set readOnlyRootFilesystem: {str(dumped.root_readonly).lower()}",
        )
    kinds = {ns.type for ns in dumped.namespaces} ^ {ns.type for ns in live.namespaces}
    if different := sorted(kinds & {"pid", "ipc", "user", "cgroup"}):
        raise Refused(
            "NamespacesDiffer",
            f"checkpoint and pod do not agree on having a {', '.join(different)} namespace of their own; set hostPID, "
            "hostIPC and hostUsers as they were",
        )


def _with(terminal: bool) -> str:
    return "with" if terminal else "without"


def _privileged(spec: RuntimeSpec) -> bool:
    """What the CRI makes of ``privileged: true``: all of /proc visible and the right to change it."""
    return not spec.masked_paths and "CAP_SYS_ADMIN" in spec.capabilities.bounding


def check_processes(dump: Dump, live: RuntimeSpec) -> None:
    """Every thread of the dump against the live spec.

    Raises Refused: CapabilitiesExceed, IdentityExceeds, NoNewPrivilegesLost, SeccompLost; each names the process.
    """
    for task in dump.tasks:
        for thread in task.threads:
            _check_capabilities(task, thread, live)
            _check_identity(task, thread, live)
            if live.no_new_privileges and not thread.credentials.no_new_privs:
                raise Refused(
                    "NoNewPrivilegesLost",
                    f"process {_name(task)} of the checkpoint may gain privileges, the pod sets "
                    "allowPrivilegeEscalation: false; take the checkpoint from a container that sets it too",
                )
            if live.seccomp and thread.seccomp_mode != SECCOMP_FILTER:
                raise Refused(
                    "SeccompLost",
                    f"process {_name(task)} of the checkpoint runs without a seccomp filter, the pod asks for one; "
                    "set seccompProfile: Unconfined if that is meant, or take a new checkpoint",
                )


def _check_capabilities(task: Task, thread: Thread, live: RuntimeSpec) -> None:
    credentials = thread.credentials
    held = credentials.permitted | credentials.effective | credentials.inheritable | credentials.ambient
    for verb, dumped, allowed in (
        ("holds", held, live.capabilities.bounding | live.capabilities.permitted),
        ("could gain", credentials.bounding, live.capabilities.bounding),
    ):
        if more := sorted(capability_names(dumped) - allowed):
            raise Refused(
                "CapabilitiesExceed",
                f"process {_name(task)} of the checkpoint {verb} {', '.join(more)}, which the pod does not grant; "
                "add them to the container's securityContext.capabilities if that is meant",
            )


def _check_identity(task: Task, thread: Thread, live: RuntimeSpec) -> None:
    """A process may have any uid and gid that its container could have switched to itself."""
    credentials = thread.credentials
    bound = live.uid != 0 and live.no_new_privileges
    uids = {credentials.uid, credentials.euid, credentials.suid, credentials.fsuid} - {live.uid}
    if uids and (bound or "CAP_SETUID" not in live.capabilities.bounding):
        raise Refused(
            "IdentityExceeds",
            f"process {_name(task)} of the checkpoint runs as uid {min(uids)}, the pod's container as {live.uid}; "
            "a container with these rights could not have become that itself",
        )
    allowed = {live.gid, *live.additional_gids}
    gids = {credentials.gid, credentials.egid, credentials.sgid, credentials.fsgid, *credentials.groups} - allowed
    if gids and (bound or "CAP_SETGID" not in live.capabilities.bounding):
        raise Refused(
            "IdentityExceeds",
            f"process {_name(task)} of the checkpoint belongs to group {min(gids)}, the pod's container only to "
            + ", ".join(map(str, sorted(allowed))),
        )


def _name(task: Task) -> str:
    return f"{task.pid} ({task.comm})"
