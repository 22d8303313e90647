"""Taking a restore back: what is left after a container ended, was removed, or its restore was cut short."""

from __future__ import annotations

import logging
from pathlib import Path

from nri_plugin.restore import mounting
from nri_plugin.restore.plan import Plan
from shared.errors import RestoreError
from shared.run import run

log = logging.getLogger(__name__)

UNDO_RESTORE = Path(__file__).resolve().parent.parent / "runtime" / "undo-restore"
"""The same program restore-runc uses, so that one description of what a restore leaves is enough."""
LIMIT_S = 30.0


def undo_if_interrupted(plan: Plan, *, wait_s: float = 0.0) -> None:
    """Ends what is left of a restore that restore-runc began and did not finish, nor undo itself.

    One that is still under way, or being undone by what restore-runc left behind, is given ``wait_s`` seconds to end.
    """
    if not plan.has("restoring") or plan.has("restored") or plan.has("failed"):
        return
    try:
        run(
            ["flock", "--timeout", f"{wait_s:g}", plan.path / "restoring", UNDO_RESTORE, plan.path],
            timeout_s=wait_s + LIMIT_S,
            check=False,
        )
    except RestoreError as error:
        log.warning("undoing the restore of %s: %s", plan.container_id[:12], error)


def delete(plan: Plan) -> None:
    """Deletes the plan directory, after everything mounted in it."""
    if plan.path.exists():
        mounting.delete_tree(plan.path)
