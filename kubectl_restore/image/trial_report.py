"""A trial as a person reads it, and as a program does."""

from __future__ import annotations

from collections import Counter
from typing import Any

from kubectl_restore.image.trial import BaseLayer, Trial
from kubectl_restore.printing import count_of, size_of
from shared.compression import Compression
from shared.printable import safe


def as_text(trial: Trial, image: str, place: str, chosen: Compression | None) -> str:
    """``place``: where the image would go, empty when that was not said."""
    lines = [f"nothing was built (dry run): {image}, {trial.image_format}{f', to the {place}' if place else ''}"]
    if trial.base:
        lines.append(f"base: {safe(trial.base)}{_base(trial.base_layers)}")
    if trial.estimated:
        measured = f"extrapolated from {size_of(trial.measured_bytes)} of {size_of(trial.total_bytes)}"
    else:
        measured = f"measured on all of {size_of(trial.total_bytes)}"
    lines.append(f"layers of the checkpoint, {measured}; the time is without writing or sending them:")
    lines.append("")
    rows = [("COMPRESS", "SIZE", "TIME", "")]
    about = "~" if trial.estimated else ""
    for cost in trial.costs:
        mark = "as asked" if cost.compression is chosen else ""
        rows.append((cost.compression.value, about + size_of(cost.size), f"{about}{cost.seconds:.2f} s", mark))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def as_json(trial: Trial, image: str, chosen: Compression | None) -> dict[str, Any]:
    return {
        "dryRun": True,
        "reference": image,
        "format": trial.image_format,
        "baseDigest": trial.base_digest,
        "baseLayers": [
            {"digest": layer.digest, "sizeBytes": layer.size, "origin": layer.origin} for layer in trial.base_layers
        ],
        "checkpoint": {"sizeBytes": trial.total_bytes, "measuredBytes": trial.measured_bytes},
        "estimated": trial.estimated,
        "compress": chosen.value if chosen else None,
        "costs": [
            {"compress": cost.compression.value, "sizeBytes": cost.size, "seconds": round(cost.seconds, 3)}
            for cost in trial.costs
        ],
    }


def _base(layers: list[BaseLayer]) -> str:
    if not layers:
        return ""
    found = Counter(layer.origin for layer in layers)
    told = {"there": "there already", "mounted": "mounted from its repository", "copied": "copied"}
    parts = [f"{found[origin]} {words}" for origin, words in told.items() if found[origin]]  # type: ignore[index]
    return f", {count_of(len(layers), 'layer')} of {size_of(sum(layer.size for layer in layers))}: {', '.join(parts)}"
