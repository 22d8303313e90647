"""A node on which one container after the other must be refused, with a CRIU that counts how often it is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from shared.contract import POD_CHECKPOINT
from tests.e2e.node.cri import CriError
from tests.e2e.node.inventory import Inventory
from tests.e2e.node.kubelet import RUNNING, Container, Kubelet, Pod
from tests.e2e.node.node import Node
from tests.e2e.node.specs import ContainerSpec, VolumeMount
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import KEEPS_NOTHING, WAITS, Taken, have, with_daemon
from tests.e2e.spoilt_checkpoints import Spoilt, groups_of
from tests.e2e.spoilt_images import Archive, archive_image, delete_all, import_all

Step = Literal["create", "start"]

PLANS: Final = "/run/nri-restore"
CRIU: Final = "/usr/local/sbin/criu"
CALLS: Final = "/run/criu-calls"
WRAPPER: Final = f"""#!/bin/sh
case $1 in --version | check | cpuinfo) ;; *) echo "$*" >> {CALLS} ;; esac
exec /usr/sbin/criu "$@"
"""
"""Stands before the real CRIU in the PATH and counts what is more than a question."""
SENTENCE_LIMIT: Final = 400

STRICT: Final = ContainerSpec(
    "",
    "strict",
    ("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"),
    tty=True,
    no_new_privileges=True,
    drop_capabilities=("ALL",),
    seccomp="RuntimeDefault",
    read_only_root=True,
    mounts=(VolumeMount("/data", "data"), VolumeMount("/settings", "settings", read_only=True)),
)
"""A container that everything was taken from, with two volumes."""


@dataclass
class Bench:
    """A node with the daemon, every spoilt image, one pod to create containers in, and a CRIU that counts."""

    node: Node
    kubelet: Kubelet
    taken: dict[str, Taken]
    """``plain`` and ``strict``."""
    archive: Archive
    groups: dict[str, list[Spoilt]]
    pod: Pod
    before: Inventory

    @property
    def by_annotation(self) -> bool:
        return self.node.flavour == "containerd-2.1"

    def restoring(self, checkpoint: str, name: str, **changes: Any) -> ContainerSpec:
        """The container as it was dumped, under another name, in the pod; other images by ``image``."""
        taken = self.taken[checkpoint]
        if self.by_annotation:
            changes.pop("image", None)
            return replace(taken.spec, name=name, **changes)
        return replace(taken.restored(reference(checkpoint)), name=name, **changes)

    def criu_calls(self) -> list[str]:
        calls = self.node.path(CALLS)
        return calls.read_text().splitlines() if calls.exists() else []

    def refuse(
        self, spec: ContainerSpec, reason: str, says: str = "", *, at: Step = "create", pod: Pod | None = None
    ) -> str:
        """Creates and starts ``spec``, which must fail at this step for this reason; returns the sentence."""
        pod = pod or self.pod
        calls = self.criu_calls()
        container: Container | None = None
        try:
            container = pod.create(spec)
            container.start()
        except CriError as error:
            details = error.details
        else:
            raise AssertionError(f"{spec.name} was restored")
        finally:
            if container is not None:
                marks = [f"{PLANS}/{container.id}/{name}" for name in ("restoring", "work/restore.log")]
                begun = [mark for mark in marks if self.node.path(mark).exists()]
                container.remove()
                pod.containers.remove(container)
        assert (container is None) == (at == "create"), details
        assert not begun if container is not None else True, details
        assert self.criu_calls() == calls
        sentence = sentence_of(details, reason)
        assert says in sentence, details
        repeated = [
            image for image in {spec.image, *pod.spec.annotations.values()} if image and details.count(image) > 1
        ]
        assert not repeated, details
        wait_for(lambda: not self.leftovers(), f"the end of what {spec.name} left: {self.leftovers()}")
        return sentence

    def leftovers(self) -> list[str]:
        """Plan directories and mounted views."""
        plans = {entry.name for entry in self.node.path(PLANS).iterdir()} - {"views", "daemon.lock", "metrics.sock"}
        views = self.node.path(f"{PLANS}/views")
        return sorted(plans) + sorted(entry.name for entry in views.iterdir()) if views.exists() else sorted(plans)

    def restore(self, spec: ContainerSpec, pod: Pod | None = None) -> None:
        """Creates and starts ``spec``, which must run on from the checkpoint."""
        pod = pod or self.pod
        calls = len(self.criu_calls())
        container = pod.run(spec)
        assert container.state == RUNNING
        assert len(self.criu_calls()) > calls, "nothing was restored"
        container.stop(0)
        container.remove()
        pod.containers.remove(container)


def reference(case: str) -> str:
    return f"nri-restore.test/{case}:1"


def sentence_of(details: str, reason: str) -> str:
    """The product's own sentence in a CRI error, which the runtime may put its own words before."""
    before, found, sentence = details.partition(f"{reason}: ")
    assert found, f"{reason} is not the reason: {details}"
    sentence = sentence.removesuffix(": unknown")
    assert len(sentence) < SENTENCE_LIMIT, f"{len(sentence)} characters: {sentence}"
    assert before.count("rpc error: code = ") <= 1
    assert not any(word in sentence for word in ("rpc error", "desc = ", "Traceback", "\n")), sentence
    return sentence


@contextmanager
def open_bench(node: Node, taken: dict[str, Taken], containers: Mapping[str, str]) -> Iterator[Bench]:
    """A bench on ``node``, gone at the end; ``containers`` says which checkpoint a container's annotation names."""
    plain = taken["plain"]
    with_daemon(node, KEEPS_NOTHING + WAITS)
    have(node, plain.base)
    before = node.inventory()
    node.path(CRIU).write_text(WRAPPER)
    node.path(CRIU).chmod(0o755)
    groups = groups_of(plain.archive)
    images = {reference(each.case): each.image for group in groups.values() for each in group}
    for name, each in taken.items():
        images[reference(name)] = archive_image(Archive.read(each.archive.read_bytes()))
    import_all(node, images)
    kubelet = Kubelet(node)
    annotations: dict[str, str] = {}
    if node.flavour == "containerd-2.1":
        named = {each.case: each.case for group in groups.values() for each in group} | {**containers}
        annotations = {f"{POD_CHECKPOINT}.{name}": reference(checkpoint) for name, checkpoint in named.items()}
    try:
        pod = kubelet.run_pod(plain.pod("refusals", annotations=annotations))
        yield Bench(node, kubelet, taken, Archive.read(plain.archive.read_bytes()), groups, pod, before)
    finally:
        kubelet.remove_all()
        delete_all(node, images)
        node.path(CRIU).unlink()
        node.path(CALLS).unlink(missing_ok=True)
