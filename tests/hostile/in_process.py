"""The checks of a restore on forged files, without a node: hundreds a second, in the order the daemon makes them."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nri_plugin.restore.node import diff_special_files
from nri_plugin.restore.rootfs import check_diff
from shared.archive import CheckpointFiles, open_checkpoint
from shared.criu.tmpfs import read_tmpfs
from shared.errors import RestoreError
from shared.judge import NodeSide, PodIdentity, judge, read
from shared.judge.mounts import check_mounts
from shared.judge.writing import ImageFile
from shared.metadata import read_checkpoint
from shared.spec import RuntimeSpec, parse_spec
from tests.hostile.attack import AS_USER, Attack, Twin
from tests.hostile.forgery import Forgery
from tests.hostile.users import as_user

DIFF_BYTES_MAX = 1 << 30


@dataclass(frozen=True)
class Outcome:
    reason: str
    """Empty: nothing was refused."""
    sentence: str
    images: Mapping[str, str] = field(default_factory=dict)
    """Digests of what CRIU would get, by name."""


def live_of(archive: Path, *, user: bool, pod: Mapping[str, Any] = MappingProxyType({})) -> RuntimeSpec:
    """The spec of the pod that restores: what the victim itself was started with, and ``pod`` (Twin.pod) on top."""
    forgery = Forgery(archive)
    if user:
        as_user(forgery)

    def grant(spec: dict[str, Any]) -> None:
        sets, more = spec["process"]["capabilities"], [f"CAP_{name}" for name in pod.get("add_capabilities", ())]
        for each in ("bounding", "effective", "permitted"):
            sets[each] = [*sets.get(each, ()), *more]

    forgery.json("spec.dump", grant)
    return parse_spec(forgery.files["spec.dump"], file="config.json")


def forged(attack: Attack | Twin, archive: Path) -> Forgery:
    forgery = Forgery(archive)
    if attack.victim in AS_USER:
        as_user(forgery)
    attack.forge(forgery)
    return forgery


def outcome(attack: Attack | Twin, archive: Path, live: RuntimeSpec, folder: Path) -> Outcome:
    """What the checks say to the forged checkpoint; ``folder`` is empty and may be written."""
    whole = forged(attack, archive).tar()
    by_file = attack.route == "archive"
    if by_file:
        path = folder / "checkpoint.tar"
        path.write_bytes(whole)
    else:
        path = folder
        unpack(whole, folder)
    try:
        return Outcome("", "", _check(path, live, build=by_file))
    except RestoreError as error:
        return Outcome(error.reason, error.sentence)


def looks_like(attack: Attack, archive: Path, live: RuntimeSpec, folder: Path) -> Outcome:
    """What the checks say to the dump that a harmless attack is restored as."""
    honest = Twin(f"{attack.name}, unforged", attack.like or (lambda forgery: None), attack.victim)
    return outcome(honest, archive, live, folder)


def unpack(whole: bytes, folder: Path) -> None:
    """What a runtime makes of the layer: every kind of file, and none outside."""
    os.umask(0o022)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        tar.extractall(folder, filter="fully_trusted")


def _check(path: Path, live: RuntimeSpec, *, build: bool) -> dict[str, str]:
    with open_checkpoint(path) as files:
        checkpoint = read_checkpoint(files)
        reading = read(files)
        dump = reading.dump
        special = read_tmpfs(files, dump.mounts)
        if build:
            return {}
        check_mounts(checkpoint.spec.mounts, live.mounts)
        check_diff(checkpoint)
        if checkpoint.rootfs_diff:
            special += diff_special_files(files, checkpoint.rootfs_diff, limit_bytes=DIFF_BYTES_MAX)
        judgement = judge(dump, checkpoint.spec, live, PodIdentity(), special, node=NodeSide("6.18.0"))
        return {image.name: _digest(image, files) for image in (*reading.files, *judgement.images)}


def _digest(image: ImageFile, files: CheckpointFiles) -> str:
    found = sha256()
    for piece in image.pieces:
        if isinstance(piece, bytes):
            found.update(piece)
        else:
            with files.open(f"checkpoint/{piece.name}") as file:
                file.seek(piece.offset)
                found.update(file.read(-1 if piece.size is None else piece.size))
    return found.hexdigest()
