"""What a build shows while it runs: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sized
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


Piece = TypeVar("Piece", bound=Sized)
"""Bytes, or what stands for as many of them."""
_SHOWN_BYTES: Final = 1 << 20
"""Smaller blobs are gone before a bar could be read."""


class Progress(Protocol):
    def track(self, label: str, size: int | None, pieces: Iterator[Piece], offset: int = 0) -> Iterator[Piece]:
        """Passes ``pieces`` on, counting them as bytes ``offset`` and up of ``size`` (None: not known yet)."""


class Silent:
    def track(self, label: str, size: int | None, pieces: Iterator[Piece], offset: int = 0) -> Iterator[Piece]:
        return pieces


def progress(*, quiet: bool) -> AbstractContextManager[Progress]:
    """A bar for each blob when standard error is a terminal; it is gone when the context ends."""
    if quiet or not sys.stderr.isatty():
        return nullcontext(Silent())
    return _Rich()


class _Rich:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars
        from rich.table import Column

        self._bars: Bars = Bars(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None),
            DownloadColumn(binary_units=True, table_column=Column(no_wrap=True)),
            TransferSpeedColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=Console(stderr=True),
            transient=True,
            expand=True,
        )

    def __enter__(self) -> _Rich:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def track(self, label: str, size: int | None, pieces: Iterator[Piece], offset: int = 0) -> Iterator[Piece]:
        if size is not None and size < _SHOWN_BYTES:
            yield from pieces
            return
        task = next((task.id for task in self._bars.tasks if task.description == label), None)
        if task is None:
            task = self._bars.add_task(label, total=size)
        for piece in pieces:
            yield piece
            offset += len(piece)
            self._bars.update(task, completed=offset)
