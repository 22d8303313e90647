"""What CRIU would restore against what the live pod asks for. Nothing here changes anything; every rule may refuse.

``runc restore`` runs no runc init: user, capabilities, seccomp, no_new_privs, terminal, mounts and root flags of the
restored processes are those in the images, whatever the pod's security context says (runc libcontainer/criu_linux.go).
So each must be what the live OCI spec gives, or less. The archive's own spec.dump is only good for explaining a
difference early and well: what is restored are CRIU's images, so those are what the rules of ``check_dump`` look at.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from shared.criu.dump import Dump
from shared.errors import Refused
from shared.judge import files, mount_images
from shared.judge.access import access_refusals
from shared.judge.credentials import credential_refusals
from shared.judge.devices import device_refusals, setuid_refusals
from shared.judge.images import image_refusals
from shared.judge.ipc import ipc_refusals
from shared.judge.links import check_volumes_of_mounters, held_mounts
from shared.judge.memory_limits import memory_refusals
from shared.judge.mount_tree import mount_tree_refusals
from shared.judge.namespaces import namespace_refusals
from shared.judge.node_side import NodeSide
from shared.judge.open_files import open_file_refusals
from shared.judge.paths import may_mount
from shared.judge.pod_identity import PodIdentity, pod_identity
from shared.judge.reading import Reading, read
from shared.judge.rings import ring_refusals
from shared.judge.settings import check_command, check_settings
from shared.judge.writing import ImageFile
from shared.spec import RuntimeSpec
from shared.special_files import SpecialFile

__all__ = [
    "Judgement",
    "NodeSide",
    "PodIdentity",
    "Reading",
    "check_command",
    "check_dump",
    "check_settings",
    "judge",
    "pod_identity",
    "read",
    "refusals",
]


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
        ipc_refusals(dump, live, identity, dumped.gid),
        memory_refusals(dump.source, dump, live),
        ring_refusals(dump, special),
        files.refusals(dump.source, dump, live),
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


@dataclass(frozen=True, slots=True)
class Judgement:
    """A dump that may be restored in a pod."""

    waived: tuple[Refused, ...]
    """What was refused and the node's administrator lets pass."""
    images: tuple[ImageFile, ...]
    """The images that depend on the pod; all others are the reading's."""


def judge(
    dump: Dump,
    dumped: RuntimeSpec,
    live: RuntimeSpec,
    identity: PodIdentity,
    special: Sequence[SpecialFile] = (),
    *,
    node: NodeSide,
    waived: Collection[str] = (),
) -> Judgement:
    """Judges a dump that was read (``read``) against the live pod; raises Refused or CheckpointInvalid.

    ``special``: device nodes, programs and links of the archives that are unpacked as root. ``waived``: reasons that
    the node's administrator lets pass.
    """
    check_settings(dumped, live, identity)
    passed = check_dump(dump, dumped, live, identity, special, waived=waived)
    if may_mount(live):
        check_volumes_of_mounters(dump, node.kernel)
    held = {mount.id for mount in held_mounts(dump, node.kernel, may_mount=may_mount(live))}
    tree = mount_images.pod_files(dump, live, held=held, node=node)
    return Judgement(passed, tuple(tree))
