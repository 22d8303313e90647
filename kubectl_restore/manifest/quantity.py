"""Amounts of memory as Kubernetes writes them (k8s.io/apimachinery pkg/api/resource/quantity.go)."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_FORM: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:([eE][+-]?\d{1,3})|([KMGTPE]i|[numkMGTPE])?)")
_UNITS: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10) ** 3,
    **{unit: Decimal(10) ** (3 * power) for power, unit in enumerate("MGTPE", 2)},
    **{f"{unit}i": Decimal(2) ** (10 * power) for power, unit in enumerate("KMGTPE", 1)},
}
_MEBIBYTE: Final = 1 << 20


def bytes_of(quantity: object) -> int | None:
    """None for what is no quantity."""
    found = _FORM.fullmatch(str(quantity))
    if not found:
        return None
    if found[2]:
        return int(Decimal(found[1] + found[2]))
    return int(Decimal(found[1]) * _UNITS[found[3] or ""])


def mebibytes(size: int) -> str:
    """``12Mi``, rounded up."""
    return f"{max(1, -(-size // _MEBIBYTE))}Mi"
