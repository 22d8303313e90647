"""Recordings of real NRI sessions: lines ``< hex`` from the runtime, ``> hex`` from the plugin, ``#`` comments.

``tests/e2e/record_nri.py`` makes them; what the plugin decided about each container is below, by the container's name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from nri_plugin.nri.nri_pb2 import ContainerAdjustment

FOLDER: Final = Path(__file__).parents[3] / "data/nri"
ANNOTATION: Final = "nri-restore.test/recorded"
ADJUSTMENTS: Final = {"adjusted": ContainerAdjustment(annotations={ANNOTATION: "x" * 5000})}
REFUSALS: Final = {"refused": ("MountMissing", "checkpoint needs the mount /cache; add it to the pod's volumeMounts")}


def read_recording(path: Path) -> list[tuple[Literal["<", ">"], bytes]]:
    lines: list[tuple[Literal["<", ">"], bytes]] = []
    for line in path.read_text().splitlines():
        if line.startswith("< "):
            lines.append(("<", bytes.fromhex(line[2:])))
        elif line.startswith("> "):
            lines.append((">", bytes.fromhex(line[2:])))
        elif not line.startswith("#"):
            raise ValueError(f"{path.name}: {line[:20]!r} is no line of a recording")
    return lines


def write_recording(path: Path, comment: str, chunks: list[tuple[str, bytes]]) -> None:
    """Writes ``chunks``; those in the same direction without one in the other between them become one line."""
    merged: list[tuple[str, bytes]] = []
    for direction, data in chunks:
        if merged and merged[-1][0] == direction:
            merged[-1] = (direction, merged[-1][1] + data)
        else:
            merged.append((direction, data))
    path.write_text(f"# {comment}\n" + "".join(f"{direction} {data.hex()}\n" for direction, data in merged))
