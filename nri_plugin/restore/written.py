"""The directories of CRIU images that this project wrote: one for each checkpoint image, one for each kind of pod.

``<view>/written-<run>`` holds what depends on the checkpoint alone, ``<view>/judged-<run>-<key>`` the same files, by
hard links, with those that depend on the live pod; replicas share it. Pages and other large raw files are links into
the read-only view. A directory appears whole, by rename, and goes with the view.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shared.archive import CheckpointFiles
from shared.errors import CheckpointInvalid, Unavailable
from shared.judge.writing import ImageFile, Raw

RUN: Final = secrets.token_hex(4)
"""What an earlier process of another version wrote is not taken for ours."""
COPY_BYTES: Final = 1 << 20


def write_shared(view: Path, images: Iterable[ImageFile], files: CheckpointFiles, dump: Path) -> Path:
    """Writes what depends on the checkpoint alone; ``dump`` is the directory of its images, below ``view``.

    Raises CheckpointInvalid when raw content is shorter than the images say, Unavailable("NodeStorageFailed").
    """
    directory = view / f"written-{RUN}"
    with _appearing(directory) as new:
        _fill(new, images, files, dump, view)
    return directory


def write_judged(
    view: Path, key: str, shared: Path, images: Iterable[ImageFile], files: CheckpointFiles, dump: Path
) -> Path:
    """Makes the directory that CRIU restores from in pods that are judged alike (``key``), or finds it.

    Raises what ``write_shared`` does.
    """
    directory = view / f"judged-{RUN}-{key}"
    if not directory.is_dir():
        with _appearing(directory) as new:
            for entry in os.scandir(shared):
                os.link(entry.path, new / entry.name, follow_symlinks=False)
            _fill(new, images, files, dump, view)
    return directory


@contextmanager
def _appearing(directory: Path) -> Iterator[Path]:
    """A new directory that gets its name when it is whole, in place of one that is there."""
    new = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    try:
        new.mkdir(mode=0o700, parents=True)
        yield new
        shutil.rmtree(directory, ignore_errors=True)
        new.rename(directory)
    except OSError as error:
        raise Unavailable(
            "NodeStorageFailed",
            f"{directory} cannot be written: {error.strerror}; free space there or see to its permissions",
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _fill(new: Path, images: Iterable[ImageFile], files: CheckpointFiles, dump: Path, view: Path) -> None:
    # Relative: CRIU opens some of them from inside the container's root, with only the directory still at hand.
    below = Path("..") / dump.relative_to(view)
    for image in images:
        if image.linked is not None:
            (new / image.name).symlink_to(below / image.linked)
            continue
        descriptor = os.open(new / image.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for content in _contents(image, files, dump.name):
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
