"""What CRIU would restore against what the live pod asks for. Nothing here changes anything; every rule may refuse.

``runc restore`` runs no runc init: user, capabilities, seccomp, no_new_privs, terminal, mounts and root flags of the
restored processes are those in the images, whatever the pod's security context says (runc libcontainer/criu_linux.go).
So each must be what the live OCI spec gives, or less. The archive's own spec.dump is only good for explaining a
difference early and well: what is restored are CRIU's images, so those are what the rules of ``check_dump`` look at.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence

from shared.criu.dump import Dump
from shared.errors import Refused
from shared.judge.access import access_refusals
from shared.judge.credentials import credential_refusals
from shared.judge.devices import device_refusals, setuid_refusals
from shared.judge.images import image_refusals
from shared.judge.mount_tree import mount_tree_refusals
from shared.judge.namespaces import namespace_refusals
from shared.judge.open_files import open_file_refusals
from shared.judge.pod_identity import PodIdentity, pod_identity
from shared.judge.settings import check_command, check_settings
from shared.spec import RuntimeSpec
from shared.special_files import SpecialFile

__all__ = ["PodIdentity", "check_command", "check_dump", "check_settings", "pod_identity", "refusals"]


def refusals(
    dump: Dump,
    dumped: RuntimeSpec,
    live: RuntimeSpec,
    identity: PodIdentity,
    special: Sequence[SpecialFile] = (),
) -> Iterator[Refused]:
    """Everything that is more than the live spec gives, cheapest first.

    ``special``: of the archives that would be unpacked as root. What is put right instead of refused: corrections.py.
    """
    nodes = [each for each in special if each.kind in ("character device", "block device")]
    programs = [each for each in special if each.kind == "file"]
    links = frozenset(each.path for each in special if each.kind == "symbolic link")
    return itertools.chain(
        image_refusals(dump),
        namespace_refusals(dump, live),
        credential_refusals(dump, dumped, live, identity),
        mount_tree_refusals(dump, live),
        access_refusals(dump, live),
        open_file_refusals(dump, live, links),
        device_refusals(dump, nodes, live),
        setuid_refusals(dump, programs, live),
    )


def check_dump(
    dump: Dump,
    dumped: RuntimeSpec,
    live: RuntimeSpec,
    identity: PodIdentity,
    special: Sequence[SpecialFile] = (),
    *,
    waived: Collection[str] = (),
) -> tuple[Refused, ...]:
    """Raises the first of ``refusals`` whose reason is not ``waived``; returns those that were."""
    passed = []
    for refused in refusals(dump, dumped, live, identity, special):
        if refused.reason not in waived:
            raise refused
        passed.append(refused)
    return tuple(passed)
