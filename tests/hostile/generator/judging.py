"""What the daemon does with a checkpoint between its files and those that CRIU gets, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nri_plugin.restore.node import diff_special_files
from nri_plugin.restore.rootfs import check_diff
from shared.archive import open_checkpoint
from shared.checkpoint_files import CheckpointFiles
from shared.criu.tmpfs import read_tmpfs
from shared.judge import NodeSide, PodIdentity, judge, read
from shared.judge.mounts import check_mounts
from shared.metadata import Checkpoint, read_checkpoint
from shared.special_files import SpecialFile
from tests.hostile.generator.difference import Written
from tests.hostile.generator.sample import InMemory, Sample
from tests.hostile.in_process import DIFF_BYTES_MAX

NODE: Final = NodeSide("6.18.0")


def judged(sample: Sample, files: InMemory) -> Written:
    """Raises RestoreError. What lies beside the images is read once, for no mutation changes it."""
    checkpoint, in_diff = _beside(sample)
    return _written(sample, files, checkpoint, in_diff)


def judged_from(path: Path, sample: Sample) -> Written:
    """The same for a checkpoint on disk, with nothing read before; raises RestoreError."""
    with open_checkpoint(path) as files:
        checkpoint = read_checkpoint(files)
        in_diff: tuple[SpecialFile, ...] = ()
        if checkpoint.rootfs_diff:
            in_diff = diff_special_files(files, checkpoint.rootfs_diff, limit_bytes=DIFF_BYTES_MAX)
    with open_checkpoint(path) as files:
        return _written(sample, files, checkpoint, in_diff)


def _beside(sample: Sample) -> tuple[Checkpoint, tuple[SpecialFile, ...]]:
    key = sample.name, sample.archive
    if key not in _known:
        files = InMemory(sample.files)
        checkpoint = read_checkpoint(files)
        name = checkpoint.rootfs_diff
        found = diff_special_files(files, name, limit_bytes=DIFF_BYTES_MAX) if name else ()
        _known[key] = checkpoint, found
    return _known[key]


_known: dict[tuple[str, Path], tuple[Checkpoint, tuple[SpecialFile, ...]]] = {}


def _written(
    sample: Sample, files: CheckpointFiles, checkpoint: Checkpoint, in_diff: tuple[SpecialFile, ...]
) -> Written:
    with files:
        reading = read(files)
        special = (*read_tmpfs(files, reading.dump.mounts), *in_diff)
    check_mounts(checkpoint.spec.mounts, sample.live.mounts)
    check_diff(checkpoint)
    judgement = judge(reading.dump, checkpoint.spec, sample.live, PodIdentity(), special, node=NODE)
    return {image.name: image.pieces for image in (*reading.files, *judgement.images)}
