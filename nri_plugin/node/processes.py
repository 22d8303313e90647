"""Programs that run on this node, by their command lines."""

from __future__ import annotations

from pathlib import Path


def processes(name: str) -> list[list[str]]:
    """Command lines of this node's processes whose program is called ``name``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if Path(words[0]).name == name:
            found.append(words)
    return found


def option(words: list[str], *names: str) -> str | None:
    """Value of an option of a command line, as ``--config x`` or ``--config=x``."""
    for index, word in enumerate(words):
        if word in names and index + 1 < len(words):
            return words[index + 1]
        for name in names:
            if word.startswith(f"{name}="):
                return word.partition("=")[2]
    return None
