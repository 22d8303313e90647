"""The restores of this node, for ``nri-restore list`` and ``show``: from plan directories and what is kept of failures.

Works without the daemon.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from nri_plugin.config import Config
from nri_plugin.restore.outcome import RECORD, kept_directory, outcome_of, report_of, state_of
from nri_plugin.restore.plan import Plan, plans_in
from shared.errors import RestoreError
from shared.printable import safe

LOG: Final = "restore.log"
LOG_LINES: Final = 20
_TAIL_BYTES: Final = 16 << 10


@dataclass(frozen=True)
class Entry:
    """One restore: of a container that is there, or kept of one that is gone."""

    container_id: str
    namespace: str
    pod: str
    pod_uid: str
    container: str
    attempt: int
    image: str
    """The checkpoint image the pod names, else the container's own."""
    state: str
    reason: str
    sentence: str
    made: float
    """When the runtime asked for the container, as a Unix time."""
    restore_s: float | None
    report: Mapping[str, Any]
    """As RestoreReport.document; empty while the preparation goes on."""
    plan: str | None
    """The plan directory; None where only the record is left."""
    kept: str
    """Directory of what is kept of a failure; it may not be there."""

    @property
    def restore_log(self) -> Path | None:
        """CRIU's log of the restore, where there is one."""
        places = [Path(self.plan, "work", LOG)] if self.plan else []
        return next((each for each in (*places, Path(self.kept, LOG)) if each.is_file()), None)


def entries(config: Config, *, gone: bool) -> list[Entry]:
    """Every restore there is a plan of, the oldest first; with ``gone`` also those only a record is left of.

    Raises RestoreError("NodeStorageFailed") where they cannot be read: only root can.
    """
    try:
        found = {each.container_id: each for each in _planned(config)}
        if gone:
            found = {each.container_id: each for each in _kept(config)} | found
    except PermissionError as error:
        raise RestoreError("NodeStorageFailed", f"{error.filename} cannot be read; run this as root") from error
    return sorted(found.values(), key=lambda each: each.made)


def find(config: Config, prefix: str) -> Entry:
    """The one whose container id begins so; raises RestoreError: IdUnknown, IdAmbiguous."""
    found = [each for each in entries(config, gone=True) if prefix and each.container_id.startswith(prefix)]
    if not found:
        raise RestoreError(
            "IdUnknown", f"no restore of a container {prefix} is known; `nri-restore list -a` has all that are"
        )
    if len(found) > 1:
        raise RestoreError("IdAmbiguous", f"{len(found)} containers begin with {prefix}; give more of the id")
    return found[0]


def _planned(config: Config) -> Iterator[Entry]:
    for plan in plans_in(config.paths.plans):
        with suppress(FileNotFoundError):  # it goes meanwhile
            if (entry := _of_plan(config, plan)) is not None:
                yield entry


def _of_plan(config: Config, plan: Plan) -> Entry | None:
    request = plan.request()
    if request is None:
        return None
    outcome, state = outcome_of(plan), state_of(plan)
    if request.by_default and state == "ordinary":
        return None
    return Entry(
        **asdict(request.subject),
        attempt=request.attempt,
        image=request.checkpoint or request.image,
        state=state,
        reason=outcome.reason if outcome else "",
        sentence=outcome.sentence if outcome else "",
        made=plan.made_at,
        restore_s=outcome.restore_s if outcome else None,
        report=report_of(plan),
        plan=str(plan.path),
        kept=str(kept_directory(config, request)),
    )


def _kept(config: Config) -> Iterator[Entry]:
    for file in config.paths.logs.glob(f"*/*/*/{RECORD}"):
        with suppress(ValueError, TypeError, KeyError, FileNotFoundError):
            record = json.loads(file.read_text())
            state = record.pop("result")
            yield Entry(**record, state=state, plan=None, kept=str(file.parent))


def table(found: Sequence[Entry], *, wide: bool) -> str:
    """Columns as kubectl prints them."""
    rows = [["CONTAINER", "POD", "NAME", "STATE", "REASON", "AGE", "IMAGE"] + ["RESTORE", "SENTENCE"] * wide]
    for each in found:
        row = [each.container_id[:13], f"{each.namespace}/{each.pod}", each.container, each.state, each.reason or "-"]
        row += [age(each.made), each.image]
        if wide:
            row += [f"{each.restore_s * 1000:.0f}ms" if each.restore_s is not None else "-", each.sentence or "-"]
        rows.append([safe(cell) for cell in row])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def described(entry: Entry) -> str:
    """Everything about one restore, for reading."""
    report, log = entry.report, entry.restore_log
    made = datetime.fromtimestamp(entry.made, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = {
        "Container": entry.container_id,
        "Pod": f"{entry.namespace}/{entry.pod} ({entry.pod_uid})",
        "Name": f"{entry.container}, attempt {entry.attempt}",
        "Image": entry.image,
        "State": entry.state + ("" if entry.plan else ", the container is gone"),
        "Reason": f"{entry.reason}: {entry.sentence}" if entry.reason else "",
        "Made": f"{made} ({age(entry.made)} ago)",
        "Plan": entry.plan or "",
        "Kept": entry.kept if Path(entry.kept).is_dir() else "",
    }
    lines = [f"{name + ':':<11}{safe(text)}" for name, text in fields.items() if text]
    phases = dict(report.get("phases", {})) | ({"restore": entry.restore_s} if entry.restore_s is not None else {})
    if phases:
        lines += ["Phases:", *(f"  {safe(name):<9}{seconds * 1000:8.0f} ms" for name, seconds in phases.items())]
    told = {f"{entry.reason}: {entry.sentence}", ""}
    if warnings := [each for each in report.get("warnings", []) if each not in told]:
        lines += ["Warnings:", *(f"  {safe(each)}" for each in warnings)]
    if log is not None:
        lines += [f"Log:       {log}, its end:", *(f"  {each}" for each in tail(log))]
    return "\n".join(lines)


def document(entry: Entry) -> Mapping[str, Any]:
    """The same for machines."""
    log = entry.restore_log
    return {**asdict(entry), "log": str(log) if log else None, "logTail": tail(log) if log else []}


def tail(log: Path) -> list[str]:
    """The last lines; what CRIU writes there is partly the checkpoint's own words."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return [safe(each) for each in file.read().decode(errors="replace").splitlines()[-LOG_LINES:]]


def age(since: float) -> str:
    """``5s``, ``3m``, ``2h``, ``4d``."""
    seconds = max(0, int(time.time() - since))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
