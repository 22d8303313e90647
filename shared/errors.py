"""Every error a user can meet, under one root.

RestoreError                    anything we raise on purpose; ``reason`` is a stable CamelCase code
├── CheckpointInvalid           the checkpoint itself is damaged, incomplete or hostile
├── Refused                     the checkpoint is sound, but this pod or node must not or cannot restore it
├── Unavailable                 something that may pass: registry, runtime or worker away, time limit
└── CommandFailed               a child process failed (shared/run.py)

The reason code goes into CRI errors, Events, metrics and docs, so it never changes meaning.
"""

from __future__ import annotations

from shared.printable import safe


class RestoreError(Exception):
    """Root of all errors raised on purpose; ``str()`` is one sentence that says what to do.

    It may quote what a checkpoint, a registry or a program says: that is made fit to be shown here, once for all.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(safe(sentence))
        self.reason = reason

    @property
    def sentence(self) -> str:
        return str(self)


class CheckpointInvalid(RestoreError):
    """The checkpoint is damaged, incomplete or hostile; the sentence names file, field and reason."""


class Refused(RestoreError):
    """The checkpoint is sound, but what it needs or grants differs from what the pod asks for or the node can do."""


class Unavailable(RestoreError):
    """Something outside is missing for now (registry, runtime, time); trying again may succeed."""


class CommandFailed(RestoreError):
    """A child process failed; carries the command line, the exit status and what it printed."""

    def __init__(self, argv: list[str], status: int, stdout: str, stderr: str) -> None:
        said = (stderr.strip() or stdout.strip() or "it printed nothing").splitlines()[-1]
        outcome = f"was killed by signal {-status}" if status < 0 else f"failed with exit status {status}"
        super().__init__("CommandFailed", f"{argv[0]} {outcome}: {said}")
        self.argv = argv
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
