"""How sentences name what a checkpoint holds."""

from __future__ import annotations

from shared.criu.tasks import Task


def name(task: Task) -> str:
    """A process by its number in the container, and its command."""
    return f"{task.pid} ({task.comm})"
