"""The directories of CRIU images that this project wrote: one for each checkpoint image, one for each kind of pod.

``<view>/written-<run>`` holds what depends on the checkpoint alone, ``<view>/judged-<run>-<key>`` the same files, by
hard links, with those that depend on the live pod; replicas share it. Pages and other large raw files are links into
the read-only view. A directory appears whole, by rename, and goes with the view.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from shared.archive import CheckpointFiles
from shared.errors import CheckpointInvalid
from shared.judge.writing import ImageFile, Raw

RUN: Final = secrets.token_hex(4)
"""What an earlier process of another version wrote is not taken for ours."""
COPY_BYTES: Final = 1 << 20


def write_shared(view: Path, images: Iterable[ImageFile], files: CheckpointFiles, dump: Path) -> Path:
    """Writes what depends on the checkpoint alone; ``dump`` is the directory of its images below ``view``.

    Raises CheckpointInvalid when raw content is shorter than the images say, OSError.
    """
    return _made(view / f"written-{RUN}", images, files, dump)


def write_judged(view: Path, key: str, shared: Path, images: Iterable[ImageFile]) -> Path:
    """Makes the directory that CRIU restores from for pods that are judged alike (``key``), or finds it."""
    directory = view / f"judged-{RUN}-{key}"
    if directory.is_dir():
        return directory
    new = _new(directory)
    try:
        for entry in os.scandir(shared):
            os.link(entry.path, new / entry.name, follow_symlinks=False)
        for image in images:
            (new / image.name).unlink(missing_ok=True)
            _write(new / image.name, [piece for piece in image.pieces if isinstance(piece, bytes)])
        new.rename(directory)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return directory


def _made(directory: Path, images: Iterable[ImageFile], files: CheckpointFiles, dump: Path) -> Path:
    new = _new(directory)
    # Relative: CRIU opens some of them from inside the container's root, with only the directory still at hand.
    below = Path("..") / dump.relative_to(directory.parent)
    try:
        for image in images:
            target = new / image.name
            if image.linked is not None:
                target.symlink_to(below / image.linked)
            else:
                _write(target, _contents(image, files, dump.name))
        shutil.rmtree(directory, ignore_errors=True)
        new.rename(directory)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return directory


def _new(directory: Path) -> Path:
    new = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    new.mkdir(mode=0o700, parents=True)
    return new


def _write(target: Path, contents: Iterable[bytes]) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for content in contents:
            file.write(content)


def _contents(image: ImageFile, files: CheckpointFiles, folder: str) -> Iterable[bytes]:
    for piece in image.pieces:
        if isinstance(piece, bytes):
            yield piece
        else:
            yield from _raw(piece, files, f"{folder}/{piece.name}")


def _raw(piece: Raw, files: CheckpointFiles, name: str) -> Iterable[bytes]:
    with files.open(name) as source:
        source.seek(piece.offset)
        left = files.size(name) - piece.offset if piece.size is None else piece.size
        while left > 0:
            content = source.read(min(left, COPY_BYTES))
            if not content:
                raise CheckpointInvalid("ImageDamaged", f"{name} ends before the content that its messages announce")
            left -= len(content)
            yield content
