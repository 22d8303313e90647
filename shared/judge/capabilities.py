"""Capabilities of the restored threads against what the live container could reach.

Sources: capabilities(7) (execve, no_new_privs, file capabilities), linux security/commoncap.c, runc
libcontainer/init_linux.go (finalizeNamespace), CRIU criu/pie/restorer.c (restore_creds).
"""

from __future__ import annotations

from collections.abc import Iterator

from shared.criu.capabilities import capability_names
from shared.criu.dump import Dump
from shared.criu.tasks import Credentials, Task
from shared.errors import Refused
from shared.judge.naming import name
from shared.spec import RuntimeSpec


def capability_refusals(dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """CapabilitiesExceed. With no_new_privs an execve gains nothing: root keeps what it was given, others only ambient.

    Threads with the same sets as an earlier one are not looked at again.
    """
    sets = live.capabilities
    if not live.no_new_privileges:
        reachable = sets.bounding | sets.permitted
    elif live.uid == 0:
        reachable = sets.permitted
    else:
        reachable = sets.ambient
    seen: set[tuple[int, ...]] = set()
    for task in dump.tasks:
        for thread in task.threads:
            mine = _sets(thread.credentials)
            if mine in seen:
                continue
            seen.add(mine)
            inheritable, permitted, effective, bounding, ambient = mine
            for verb, dumped, allowed in (
                ("holds", permitted | effective | ambient, reachable),
                ("could pass on", inheritable, reachable | sets.inheritable),
                ("could gain", bounding, sets.bounding),
            ):
                if more := sorted(capability_names(dumped) - allowed):
                    yield _exceed(task, verb, more)


def _sets(credentials: Credentials) -> tuple[int, int, int, int, int]:
    return (
        credentials.inheritable,
        credentials.permitted,
        credentials.effective,
        credentials.bounding,
        credentials.ambient,
    )


def _exceed(task: Task, verb: str, names: list[str]) -> Refused:
    few = ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more capabilities"
    return Refused(
        "CapabilitiesExceed",
        f"process {name(task)} of the checkpoint {verb} {few}, which the pod does not grant; "
        "add that to the container's securityContext.capabilities if it is meant",
    )
