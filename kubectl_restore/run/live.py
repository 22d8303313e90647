"""One view of all phases on a terminal, drawn again in place; notes stand above it and scroll away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

from rich.console import Console, RenderableType
from rich.live import Live as Display
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kubectl_restore.printing import size_of
from kubectl_restore.run.phases import Phase
from shared.printable import safe

_PER_SECOND: Final = 8
_BAR_FROM: Final = 100
_RATE_FROM: Final = 64
"""Columns of the terminal from which these are shown; what a phase is about gets the rest."""
_BAR_COLUMNS, _AMOUNT_COLUMNS, _RATE_COLUMNS, _TIME_COLUMNS = 20, 18, 10, 6
_ECHO_COLUMNS: Final = len("^C^C")
_MARKS: Final = {"planned": ("·", "-", "dim"), "finished": ("✓", "+", "green"), "failed": ("✗", "x", "bold red")}
"""With and without Unicode, and the style."""


class Live:
    """A context manager; colours are rich's, which leaves them out under NO_COLOR."""

    def __init__(self, names: Sequence[str], console: Console | None = None) -> None:
        self._phases = {name: Phase(name) for name in names}
        self._console = console or Console(stderr=True, highlight=False)
        self._spinner = Spinner("line" if self._console.options.ascii_only else "dots", style="cyan")
        self._display = Display(
            get_renderable=self._table, console=self._console, refresh_per_second=_PER_SECOND, redirect_stdout=False
        )

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.stop()

    def changed(self, phase: Phase) -> None:
        self._phases[phase.name] = phase
        self._display.refresh()

    def moved(self, phase: Phase) -> None:
        """The display draws itself again."""

    def note(self, sentence: str) -> None:
        self._console.print(Text(safe(sentence)), soft_wrap=True)

    def _table(self) -> RenderableType:
        # The terminal echoes ^C behind the last line, which must not wrap.
        width = self._console.width - _ECHO_COLUMNS
        table = Table.grid(padding=(0, 1))
        table.width = width
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="crop" if self._console.options.ascii_only else "ellipsis", ratio=1)
        if width >= _BAR_FROM:
            table.add_column(width=_BAR_COLUMNS)
        # Least widths, so that nothing moves while the numbers grow.
        table.add_column(no_wrap=True, justify="right", min_width=_AMOUNT_COLUMNS if width >= _RATE_FROM else 0)
        if width >= _RATE_FROM:
            table.add_column(no_wrap=True, justify="right", min_width=_RATE_COLUMNS)
        table.add_column(no_wrap=True, justify="right", min_width=_TIME_COLUMNS)
        for phase in self._phases.values():
            table.add_row(*self._row(phase, width))
        return table

    def _row(self, phase: Phase, width: int) -> list[RenderableType]:
        dim = "dim" if phase.state == "planned" else ""
        about = f"{phase.about}: {phase.now}" if phase.now and phase.state == "running" else phase.about
        cells: list[RenderableType] = [self._mark(phase), Text(phase.name, dim), Text(safe(about), dim)]
        if width >= _BAR_FROM:
            running = phase.moved and phase.state == "running"
            bar = ProgressBar(total=phase.total_bytes, completed=phase.done_bytes, width=_BAR_COLUMNS)
            cells.append(bar if running else Text())
        cells.append(Text(_amount(phase, both=width >= _RATE_FROM)))
        if width >= _RATE_FROM:
            cells.append(Text(f"{size_of(phase.rate)}/s" if phase.moved else ""))
        cells.append(Text(_time(phase.seconds) if phase.began else ""))
        return cells

    def _mark(self, phase: Phase) -> RenderableType:
        if phase.state == "running":
            return self._spinner
        fancy, plain, style = _MARKS[phase.state]
        return Text(plain if self._console.options.ascii_only else fancy, style)


def _amount(phase: Phase, *, both: bool) -> str:
    if not phase.moved:
        return ""
    return phase.amount if both and phase.state == "running" else size_of(phase.done_bytes)


def _time(seconds: float) -> str:
    """``3.2 s``, ``1:05``."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60}:{int(seconds) % 60:02}"
