"""The spec a container was dumped with against the one it is created with now: what a user can set in the pod."""

from __future__ import annotations

from collections.abc import Iterable

from shared.errors import Refused
from shared.judge.pod_identity import PodIdentity
from shared.spec import RuntimeSpec

_COMMAND_LIMIT = 80


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
    return text if len(text) <= _COMMAND_LIMIT else text[: _COMMAND_LIMIT - 4] + " …]"


def check_settings(dumped: RuntimeSpec, live: RuntimeSpec, identity: PodIdentity) -> None:
    """Raises Refused: TtyDiffers, UserDiffers, PrivilegedDiffers, NamespacesDiffer."""
    if dumped.terminal != live.terminal:
        raise Refused(
            "TtyDiffers",
            f"the checkpointed container had {_a(dumped.terminal)} terminal, the pod asks for {_a(live.terminal)} "
            f"terminal; set tty: {_yaml(dumped.terminal)} on the container",
        )
    if dumped.uid != live.uid or (dumped.gid != live.gid and (identity.group_fixed or live.gid != 0)):
        raise Refused(
            "UserDiffers",
            f"the pod runs the container as {live.uid}:{live.gid}, the checkpointed one ran as "
            f"{dumped.uid}:{dumped.gid} and a restore cannot change that; set runAsUser: {dumped.uid} and "
            f"runAsGroup: {dumped.gid}, or take a new checkpoint",
        )
    if is_privileged(dumped) != is_privileged(live):
        raise privileged_differs(dumped=is_privileged(dumped))
    kinds = {ns.type for ns in dumped.namespaces} ^ {ns.type for ns in live.namespaces}
    if different := sorted(kinds & {"pid", "ipc", "user", "cgroup"}):
        raise Refused(
            "NamespacesDiffer",
            f"checkpoint and pod do not agree on having a {', '.join(different)} namespace of their own; set hostPID, "
            "hostIPC and hostUsers as they were",
        )
    if (sharing := _shares_processes(dumped)) != _shares_processes(live):
        # CRIU makes a PID namespace where the dump had one of its own, and looks for the pod's where it had none.
        raise Refused(
            "NamespacesDiffer",
            f"the checkpointed container {'shared' if sharing else 'did not share'} its processes with its pod, and "
            f"this pod's is to be otherwise; set shareProcessNamespace: {_yaml(sharing)}",
        )


def _shares_processes(spec: RuntimeSpec) -> bool:
    return any(namespace.type == "pid" and namespace.path for namespace in spec.namespaces)


def privileged_differs(*, dumped: bool) -> Refused:
    return Refused(
        "PrivilegedDiffers",
        f"the checkpointed container was {'' if dumped else 'not '}privileged and the pod's is"
        f"{' not' if dumped else ''}; set privileged: {_yaml(dumped)} on the container",
    )


def _a(has: bool) -> str:
    return "a" if has else "no"


def _yaml(value: bool) -> str:
    return "true" if value else "false"


def is_privileged(spec: RuntimeSpec) -> bool:
    """What the CRI makes of ``privileged: true``: all of /proc visible and the right to change it."""
    return not spec.masked_paths and "CAP_SYS_ADMIN" in spec.capabilities.bounding
