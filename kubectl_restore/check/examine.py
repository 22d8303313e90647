"""One check, top to bottom: from an open checkpoint, and the machine and pod to restore it on, to a report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from kubectl_restore.check.contents import check_contents
from kubectl_restore.check.findings import Report, finding, report_of
from kubectl_restore.check.machine import GO_ARCHITECTURES
from kubectl_restore.check.pod import PodContainer, check_memory, check_pod
from kubectl_restore.check.rootfs import Layer, image_layers, layers_of, look_up, special_in_diff
from kubectl_restore.image.base import AccessTo, is_archive_checkpoint, is_layered_checkpoint, named_base, recorded_base
from kubectl_restore.reading import OpenCheckpoint
from shared import oci
from shared.criu.dump import Dump
from shared.criu.dump_host import read_dump_host
from shared.criu.tmpfs import read_tmpfs
from shared.errors import CheckpointInvalid, Refused, RestoreError
from shared.judge import read
from shared.metadata import Checkpoint, read_checkpoint
from shared.node_facts import NodeFacts
from shared.preflight.cpu import dump_needs, level_needs
from shared.preflight.files import compare_files, expected_files, volumes
from shared.preflight.findings import Finding, Level
from shared.preflight.platform import check_cpu, check_platform

NO_BASE = "none"
"""``--base none``: the files are not compared."""


@dataclass(frozen=True)
class Question:
    """What is asked about a checkpoint."""

    machine: NodeFacts | None
    """None: no machine is looked at, as on a computer that is no node."""
    base: str | None
    """As for ``build``, or NO_BASE; None: what the checkpoint recorded."""
    pod: PodContainer | None


def examine(opened: OpenCheckpoint, question: Question, access: AccessTo) -> Report:
    """Raises nothing for a bad checkpoint: that is a finding."""
    against = _against(question)
    try:
        return report_of(opened.name, against, _findings(opened, question, access))
    except CheckpointInvalid as error:
        damaged = finding("CheckpointDamaged", "checkpoint", f"{error.reason}: {error.sentence}")
        return report_of(opened.name, against, [damaged])
    except Refused as error:
        refused = Finding(error.reason, Level.fails, "checkpoint", error.sentence)
        return report_of(opened.name, against, [refused])


def _against(question: Question) -> str:
    if question.machine is not None:
        return question.machine.name
    return f"container {question.pod.name} of the pod" if question.pod else "a node like its own"


def _findings(opened: OpenCheckpoint, question: Question, access: AccessTo) -> Iterator[Finding]:
    checkpoint = read_checkpoint(opened.files)
    dump = read(opened.files).dump
    made = read_tmpfs(opened.files, dump.mounts)
    host = read_dump_host(opened.files)
    pages = sum(name.startswith("pages-") for name in dump.images)
    whole = f"{len(dump.images)} images of {len(dump.tasks)} processes, {pages} of memory, sizes as their indexes say"
    yield finding("CheckpointWhole", "checkpoint", whole)
    machine = question.machine
    if machine is None:
        said = "no machine was looked at; --node NAME judges a node, --here this machine"
        yield finding("MachineNotChecked", "machine", said)
    elif machine.os == "linux":
        yield from check_platform(dump, host, checkpoint.criu_version, machine)
    else:
        yield finding("NotLinux", "machine", f"{machine.name} runs {machine.os}; only Linux restores: name a --node")
    yield from check_contents(dump, checkpoint.spec)
    images = dump.source
    needs = dump_needs(images, dump)
    expected, elsewhere = expected_files(images, dump)
    yield from volumes(elsewhere)
    layers, about = _root(opened, checkpoint, dump, question.base, access)
    yield from about
    if layers is not None:
        try:
            found = look_up(layers, [file.path for file in expected])
        except (RestoreError, OSError) as error:
            yield finding("BaseUnreadable", "files", f"the base image cannot be read to the end: {error}")
        else:
            levels = (there.elf.isa_level for there in found.values() if there and there.elf)
            needs = replace(needs, flags=needs.flags | level_needs(levels))
            yield from compare_files(expected, found)
    if machine is not None and machine.os == "linux":
        yield check_cpu(needs, host, machine)
    if question.pod:
        special = [*made, *special_in_diff(opened.files, checkpoint)]
        memory = check_memory(question.pod, images, dump)
        yield from check_pod(question.pod, checkpoint, dump, special, memory)


def _root(
    opened: OpenCheckpoint, checkpoint: Checkpoint, dump: Dump, wanted: str | None, access: AccessTo
) -> tuple[list[Layer] | None, list[Finding]]:
    """The layers that the container's root consists of, or None, and what there is to say about them."""
    if opened.image and is_layered_checkpoint(opened.image):
        return image_layers(opened.image, len(opened.image.manifest.layers) - 1), []
    if wanted == NO_BASE:
        said = "the files were not compared with the base image (--base none)"
        return None, [finding("BaseNotChecked", "files", said)]
    platform = oci.Platform("linux", GO_ARCHITECTURES[dump.root.machine])
    doubts: list[str] = []
    try:
        if wanted:
            base, doubts = named_base(wanted, checkpoint.base, platform, access)
        else:
            base = recorded_base(checkpoint.base, platform, access)
        if is_archive_checkpoint(base):
            raise RestoreError("BaseIsCheckpoint", f"{base.name} is a checkpoint in archive format, not a root")
        layers = layers_of(opened.files, checkpoint, base)
    except (RestoreError, OSError) as error:
        remedy = (
            "; --base none leaves it out" if "--base" in str(error) else "; name it with --base, or give --base none"
        )
        return None, [finding("BaseUnreadable", "files", f"there is no base image to compare with: {error}{remedy}")]
    return layers, [finding("BaseDoubtful", "files", doubt) for doubt in doubts]
