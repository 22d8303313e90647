"""The commands that a document tells its readers to paste."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def commands(document: str, heading: str) -> list[str]:
    """Lines of the ``sh`` blocks between this heading of ``docs/<document>`` and the next heading.

    Raises ValueError when there are none.
    """
    text = (DOCS / document).read_text()
    section = f"\n{text}".partition(f"\n## {heading}\n")[2].partition("\n##")[0]
    blocks = [part.partition("\n```")[0] for part in section.split("\n```sh\n")[1:]]
    lines = [line for block in blocks for line in block.splitlines()]
    if not lines:
        raise ValueError(f"docs/{document} has no commands below {heading!r}")
    return lines
