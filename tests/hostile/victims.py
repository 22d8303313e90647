"""The pods whose checkpoints are forged: an ordinary one, one as restricted as Kubernetes knows, one with volumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.e2e.node.counter import printed
from tests.e2e.node.image import busybox_image
from tests.e2e.node.kubelet import Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import base_root
from tests.e2e.node.specs import ContainerSpec, PodSpec, VolumeMount
from tests.e2e.restoring import Taken, checkpointed, push_base
from tests.hostile.attack import AS_USER, Victim

COUNTER: Final = "sleep 100000 & i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"
COMMAND: Final = ("sh", "-c", COUNTER)

SPECS: Final[Mapping[Victim, ContainerSpec]] = {
    "ordinary": ContainerSpec("", "counter", COMMAND),
    "restricted": ContainerSpec(
        "",
        "counter",
        COMMAND,
        no_new_privileges=True,
        drop_capabilities=("ALL",),
        seccomp="RuntimeDefault",
    ),
    "mounted": ContainerSpec(
        "",
        "counter",
        COMMAND,
        read_only_root=True,
        mounts=(VolumeMount("/read", "read", read_only=True), VolumeMount("/write", "write")),
    ),
}


def take(node: Node, registry: Registry, folder: Path) -> dict[Victim, Taken]:
    """Checkpoints of all victims, taken through the CRI of a containerd 2.x node."""
    base = push_base(registry, busybox_image(base_root("containerd-1.7")), "victim:1")
    kubelet = Kubelet(node)
    taken: dict[Victim, Taken] = {}
    for name, spec in SPECS.items():
        pod = PodSpec(f"victim-{name}")
        own = replace(spec, image=base)
        taken[name] = checkpointed(kubelet, folder, pod, own, lambda each: len(printed(each)) > 2)
    return taken


def archives_of(victims: Mapping[Victim, Taken]) -> dict[Victim, Path]:
    """The archive of each victim; a user's is another one's, changed before anything else (users.py)."""
    found = {name: taken.archive for name, taken in victims.items()}
    return {**found, **{name: found[other] for name, other in AS_USER.items() if other in found}}
