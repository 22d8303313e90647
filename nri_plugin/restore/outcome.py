"""What became of a restore, read from its plan directory: also of one that ended while the daemon was away."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from nri_plugin.config import Config
from nri_plugin.restore.plan import Plan
from nri_plugin.restore.request import RestoreRequest
from shared.errors import Unavailable
from shared.printable import safe

Result = Literal["restored", "refused", "failed", "started"]
"""``started``: afresh, from the container's own image, because the pod says so; the reason is empty where it always
does, else that of the refusal or failure."""
State = Literal["preparing", "ready", "restoring", "cancelled", "ordinary", "restored", "refused", "failed", "started"]

RECORD: Final = "record.json"
"""Beside a kept restore.log: what is left to show of a container that is gone."""
CANCELLED: Final = "Cancelled"
"""The reason of what nobody waits for any more, which is no news."""
_SAID: Final = re.compile(r"(?:refused )?(?P<reason>[A-Z][A-Za-z0-9]{2,63}): (?P<sentence>.*)", re.DOTALL)


@dataclass(frozen=True)
class Outcome:
    """How one restore ended; ``reason`` and ``sentence`` are empty where all went well."""

    result: Result
    reason: str = ""
    sentence: str = ""
    restore_s: float | None = None
    """From the call of the runtime's restore until the processes stood."""


def outcome_of(plan: Plan) -> Outcome | None:
    """None while it is undecided, for what was never to be restored, and when the pod was stopped before it ended."""
    outcome = _outcome(plan)
    return None if outcome is None or outcome.reason == CANCELLED else outcome


def _outcome(plan: Plan) -> Outcome | None:
    status = (plan.status or "").strip()
    if status.startswith("refused "):
        return Outcome("refused", *_said(status))
    if status == "plain":
        report = report_of(plan)
        if not str(report.get("outcome", "")).startswith("started"):
            return None
        return Outcome("started", str(report.get("reason", "")), str(report.get("sentence", "")))
    if plan.has("restored"):
        return Outcome("restored", restore_s=_between(plan, "restoring", "restored"))
    if why := plan.read("why"):
        if plan.has("start-on-failure") and plan.has("restoring") and not plan.has("failed"):
            return None  # still being undone; then the container starts, unless the undoing is interrupted
        return Outcome("started" if plan.has("start-on-failure") and plan.has("failed") else "failed", *_said(why))
    if plan.has("failed"):
        error = Unavailable("RestoreInterrupted", "restore-runc was killed while it restored the container; try again")
        return Outcome("failed", error.reason, error.sentence)
    return None


def state_of(plan: Plan) -> State:
    """Where the restore stands now."""
    outcome = _outcome(plan)
    if outcome is not None:
        return "cancelled" if outcome.reason == CANCELLED else outcome.result
    status = plan.status
    if status is None:
        return "preparing"
    if status.startswith(("plain", "undecided")):
        return "ordinary"
    if plan.has("cancelled"):
        return "cancelled"
    return "restoring" if plan.has("restoring") else "ready"


def report_of(plan: Plan) -> Mapping[str, Any]:
    """What RestoreReport.to_json wrote; empty where the preparation has not ended."""
    with suppress(ValueError):
        report = json.loads(plan.read("report") or "{}")
        if isinstance(report, dict):
            return report
    return {}


def kept_directory(config: Config, request: RestoreRequest) -> Path:
    """Where the logs of this attempt stay when the container is gone; a pod's directory is named as the kubelet's."""
    pod = f"{request.pod_namespace}_{request.pod_name}_{request.pod_uid}"
    return config.paths.logs / pod / request.container_name / str(request.attempt)


def _said(text: str) -> tuple[str, str]:
    found = _SAID.match(text.strip())
    return (found["reason"], safe(found["sentence"])) if found else ("Unknown", safe(text.strip()))


def _between(plan: Plan, first: str, last: str) -> float | None:
    with suppress(OSError):
        return max(0.0, (plan.path / last).stat().st_mtime - (plan.path / first).stat().st_mtime)
    return None
