"""What the shell offers on Tab: verbs and flags from the declarations, pods and containers from the cluster."""

from __future__ import annotations

from typing import Any


def contexts(ctx: Any, incomplete: str) -> list[str]:
    return []


def namespaces(ctx: Any, incomplete: str) -> list[str]:
    return []
