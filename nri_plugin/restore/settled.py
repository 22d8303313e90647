"""Tells of every restore once, when it has ended: restore-runc says so in the plan directory, and nobody else hears it.

Looked for whenever the daemon's session asks whether the worker is there, and when the container stops or goes. The
plan's file ``told`` keeps a new daemon from telling again.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict

from nri_plugin.config import Config
from nri_plugin.logs import about
from nri_plugin.restore.outcome import RECORD, Outcome, State, kept_directory, outcome_of, report_of, state_of
from nri_plugin.restore.plan import Plan, plans_in
from nri_plugin.restore.request import RestoreRequest
from shared.errors import RestoreError

log = logging.getLogger(__name__)

Tell = Callable[[Plan, RestoreRequest, Outcome], None]


class Settled:
    """``look`` tells of one plan if there is news, ``look_at_all`` of every plan, and counts them by state."""

    def __init__(self, config: Config, deleting: threading.Lock, tell: Tell) -> None:
        """``deleting`` is held while a plan is deleted; a file written into it then would keep it from going."""
        self.config = config
        self.deleting = deleting
        self.tell = tell
        self.states: Counter[State] = Counter()
        self.oldest_s = 0.0
        """Age of the oldest plan that is still being prepared or restored."""
        self._looking = threading.Lock()

    def look(self, plan: Plan) -> None:
        with self._looking:
            if plan.has("told") or (outcome := outcome_of(plan)) is None or (request := plan.request()) is None:
                return
            with self.deleting:
                if not plan.path.is_dir():
                    return
                plan.write("told", "")
            if outcome.result != "restored" and outcome.reason:
                self._keep(plan, request, outcome)
        with about(request.subject):
            self.tell(plan, request, outcome)

    def look_at_all(self) -> None:
        states: Counter[State] = Counter()
        oldest_s = 0.0
        for plan in plans_in(self.config.paths.plans):
            try:
                self.look(plan)
                state = state_of(plan)
                states[state] += 1
                if state in ("preparing", "restoring"):
                    oldest_s = max(oldest_s, time.time() - plan.made_at)
            except (RestoreError, OSError) as error:  # of a plan that goes meanwhile
                log.debug("plan %s: %s", plan.container_id[:12], error)
        self.states, self.oldest_s = states, oldest_s

    def _keep(self, plan: Plan, request: RestoreRequest, outcome: Outcome) -> None:
        """What ``nri-restore show`` has to show when the plan is gone; a later attempt of that number replaces it."""
        record = {
            **asdict(request.subject),
            "attempt": request.attempt,
            "image": request.checkpoint or request.image,
            "made": plan.made_at,
            **asdict(outcome),
            "report": report_of(plan),
        }
        directory = kept_directory(self.config, request)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = directory / f".{RECORD}.new"
            temporary.write_text(json.dumps(record))
            temporary.chmod(0o600)
            temporary.rename(directory / RECORD)
        except OSError as error:
            log.warning("%s cannot be written: %s", directory, error.strerror)
