"""Users and groups of the restored threads against those of the live container.

Sources: credentials(7), setresuid(2), setgroups(2), fcntl(2) (F_SETOWN_EX), CRIU criu/pie/restorer.c (restore_creds)
and criu/files.c (restore_fown).
"""

from __future__ import annotations

from collections.abc import Iterator

from shared.criu.dump import Dump
from shared.criu.tasks import Credentials, Task
from shared.errors import Refused
from shared.judge.naming import name
from shared.judge.pod_identity import PodIdentity
from shared.spec import RuntimeSpec


def identity_refusals(dump: Dump, dumped: RuntimeSpec, live: RuntimeSpec, identity: PodIdentity) -> Iterator[Refused]:
    """IdentityExceeds for users and groups that the container could not have switched to by itself.

    A container that starts as root may switch with CAP_SETUID and CAP_SETGID. One that starts as another user only
    gets elsewhere through a setuid program of its image: a pod with runAsUser does not ask for that.
    """
    gids = {live.gid, *live.additional_gids}
    if not identity.group_fixed and live.gid == 0:
        gids.add(dumped.gid)
    groups = gids if identity.groups_fixed else gids | set(dumped.additional_gids)
    any_user = live.uid == 0 and "CAP_SETUID" in live.capabilities.bounding
    any_group = live.uid == 0 and "CAP_SETGID" in live.capabilities.bounding
    seen: set[tuple[object, ...]] = set()
    for task in dump.tasks:
        for thread in task.threads:
            mine = _ids(thread.credentials)
            if mine in seen:
                continue
            seen.add(mine)
            if not any_user and (others := set(mine[0]) - {live.uid}):
                yield _other_user(task, min(others), live)
            if not any_group and (others := (set(mine[1]) - gids) | (set(mine[2]) - groups)):
                yield _other_group(task, min(others), groups)
    if not any_user:
        for file in dump.files:
            if file.owner and (others := {file.owner.uid, file.owner.euid} - {live.uid}):
                yield _other_sender(min(others), live)


def _ids(credentials: Credentials) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    return (
        (credentials.uid, credentials.euid, credentials.suid, credentials.fsuid),
        (credentials.gid, credentials.egid, credentials.sgid, credentials.fsgid),
        credentials.groups,
    )


def _other_user(task: Task, uid: int, live: RuntimeSpec) -> Refused:
    return Refused(
        "IdentityExceeds",
        f"process {name(task)} of the checkpoint runs as uid {uid}, the pod's container as {live.uid}; "
        "a container with these rights could not have become that itself",
    )


def _other_sender(uid: int, live: RuntimeSpec) -> Refused:
    return Refused(
        "IdentityExceeds",
        f"the checkpoint has a file open that sends signals as uid {uid}, the pod's container runs as {live.uid}; a "
        "container with these rights could not have become that itself",
    )


def _other_group(task: Task, gid: int, groups: set[int]) -> Refused:
    return Refused(
        "IdentityExceeds",
        f"process {name(task)} of the checkpoint belongs to group {gid}, the pod's container only to "
        f"{', '.join(map(str, sorted(groups)))}; name the group in runAsGroup, fsGroup or supplementalGroups if "
        "that is meant",
    )
