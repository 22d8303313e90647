from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from kubectl_restore.run.live import Live
from kubectl_restore.run.phases import Phases

NAMES = ["checkpoint", "push", "resume"]


def terminal(width: int, encoding: str = "utf-8") -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    return Console(file=file, force_terminal=True, width=width, color_system="standard", highlight=False)


def written(console: Console) -> str:
    assert isinstance(console.file, io.TextIOWrapper) and isinstance(console.file.buffer, io.BytesIO)
    return console.file.buffer.getvalue().decode()


def last(console: Console) -> list[str]:
    """What stands there in the end, without colours."""
    frame = written(console).rpartition("\x1b[2K")[2]
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frame).splitlines()]


def work(console: Console) -> None:
    with Live(NAMES, console) as live:
        phases = Phases(live)
        with phases.phase("checkpoint", "container main of pod default/web"):
            pass
        with phases.phase("push", "to registry.example/checkpoints/web:1"):
            list(phases.track("layer", 64 << 20, iter([bytes(32 << 20)])))
            phases.now("half of it")
            phases.note("a\x1b[2J note")
        with pytest.raises(KeyboardInterrupt), phases.phase("resume", "pod default/web-restored"):
            phases.now("ContainerCreating")
            raise KeyboardInterrupt


@pytest.mark.parametrize("width", [140, 80, 44])
def test_a_line_for_each_phase_whatever_the_width(width: int) -> None:
    console = terminal(width)
    work(console)
    lines = last(console)
    assert [line.split()[:2] for line in lines] == [["✓", "checkpoint"], ["✓", "push"], ["✗", "resume"]]
    assert max(map(len, lines)) <= width - 4, "a ^C that the terminal echoes must not wrap"
    assert "32 MiB" in lines[1] and all(re.search(r"\d\.\d s$", line) for line in lines)
    assert ("/s" in lines[1]) == (width > 70)


def test_while_it_goes_on() -> None:
    console = terminal(140)
    work(console)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written(console))
    assert "32 MiB of 64 MiB" in shown and "━━━━" in shown
    assert "· resume" in shown and "pod default/web-restored: ContainerCreating" in shown
    assert "a\\x1b[2J note" in shown


def test_colours_are_left_out_under_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = terminal(80)
    work(coloured)
    assert "\x1b[32m" in written(coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = terminal(80)
    work(plain)
    assert not re.search(r"\x1b\[(1;)?3\dm", written(plain))


def test_terminal_without_unicode() -> None:
    console = terminal(80, "ascii")
    work(console)
    assert [line[0] for line in last(console)] == ["+", "+", "x"]
