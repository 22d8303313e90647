"""The worker's side: sends a child process to the API server, and never waits for it where a restore would."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from nri_plugin import config
from nri_plugin.cluster.access import possible
from nri_plugin.logs import Subject
from nri_plugin.restore.outcome import Outcome
from shared.errors import RestoreError, Unavailable
from shared.run import run

log = logging.getLogger(__name__)

ERRAND_S: Final = 60.0
QUEUE_LIMIT: Final = 500
"""Events that wait while the API server does not answer; the oldest go first."""
KNOWN_LIMIT: Final = 1000
"""Events whose repetitions are counted."""
RETRY_S: Final = 60.0

_REASONS: Final = {"restored": "Restored", "refused": "RestoreRefused", "failed": "RestoreFailed"}


class ClusterClient:
    """Does nothing at all where there is no way to an API server."""

    def __init__(self, settings: config.Cluster) -> None:
        self.settings = settings
        self.enabled = possible(settings)
        self._guard = threading.Lock()
        self._waiting: deque[Mapping[str, Any]] = deque(maxlen=QUEUE_LIMIT)
        self._sending = False
        self._counts: OrderedDict[str, int] = OrderedDict()

    def announce(self, subject: Subject, outcome: Outcome) -> None:
        """Queues an Event on the pod; what cannot be posted is logged and given up."""
        if not self.enabled or (outcome.result == "started" and not outcome.reason):
            return
        with self._guard:
            self._waiting.append(self._event(subject, outcome))
            if self._sending:
                return
            self._sending = True
        threading.Thread(target=self._send, name="events", daemon=True).start()

    def logins(self, subject: Subject, reference: str) -> Sequence[tuple[str, str]]:
        """The pod's logins for ``reference``; none where they cannot be had, which is logged."""
        if not self.enabled:
            return ()
        try:
            answer = self._errand({"errand": "logins", "subject": asdict(subject), "reference": reference})
        except RestoreError as error:
            log.warning("the pod's pull secrets cannot be had: %s: %s", error.reason, error)
            return ()
        return [(str(user), str(password)) for user, password in answer["logins"]]

    def look(self) -> str:
        """This node's name in the cluster; raises RestoreError with what keeps the API server from saying it."""
        return str(self._errand({"errand": "look"})["node"])

    def publish(self) -> None:
        """Writes the node's annotation, later when it cannot be done now."""
        if not self.enabled:
            return
        try:
            if not self._errand({"errand": "publish"})["written"]:
                log.info("the node's annotation is not written: patching nodes is not allowed")
        except RestoreError as error:
            log.warning("the node's annotation cannot be written: %s: %s", error.reason, error)
            again = threading.Timer(RETRY_S, self.publish)
            again.daemon = True
            again.start()

    def _event(self, subject: Subject, outcome: Outcome) -> Mapping[str, Any]:
        if outcome.result == "restored":
            message = "the container resumed from its checkpoint"
        elif outcome.result == "started":
            message = f"the container started afresh: {outcome.reason}: {outcome.sentence}"
        else:
            message = f"{outcome.reason}: {outcome.sentence}"
        reason = _REASONS.get(outcome.result, "RestoreFailed")
        key = hashlib.sha256("\0".join((subject.pod_uid, subject.container, reason, message)).encode()).hexdigest()
        # What an object's name may be long is 253 (validation.IsDNS1123Subdomain).
        name = f"{subject.pod[:230]}.{key[:16]}"
        self._counts[name] = count = self._counts.pop(name, 0) + 1
        if len(self._counts) > KNOWN_LIMIT:
            self._counts.popitem(last=False)
        kind = "Normal" if outcome.result == "restored" else "Warning"
        told = {"name": name, "count": count, "reason": reason, "message": message, "type": kind}
        return {**told, "subject": asdict(subject)}

    def _send(self) -> None:
        """Goes until none waits; those that come meanwhile share the next child process."""
        while True:
            with self._guard:
                batch = list(self._waiting)
                self._waiting.clear()
                if not batch:
                    self._sending = False
                    return
            try:
                self._errand({"errand": "events", "events": batch})
            except RestoreError as error:
                log.warning("%d Kubernetes Events were not all posted: %s: %s", len(batch), error.reason, error)

    def _errand(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        kubeconfig = self.settings.kubeconfig
        node = self.settings.node or os.environ.get("NODE_NAME", "")
        settings = {"kubeconfig": str(kubeconfig) if kubeconfig else None, "node": node}
        given = json.dumps({**request, "settings": settings}).encode()
        try:
            done = run([sys.executable, "-m", "nri_plugin.cluster"], timeout_s=ERRAND_S, stdin=given)
            answer: Mapping[str, Any] = json.loads(done.stdout)
        except (OSError, ValueError) as error:
            raise Unavailable("CommandFailed", f"nri_plugin.cluster: {error}") from error
        if "error" in answer:
            raise Unavailable(*answer["error"])
        return answer
