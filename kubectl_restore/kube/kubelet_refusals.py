"""What a kubelet says when it takes no checkpoint, told apart and explained.

Source of the texts: kubernetes pkg/kubelet/server/server.go (checkpoint), pkg/kubelet/kubelet.go (CheckpointContainer);
containerd internal/cri/server/container_checkpoint*.go; cri-o server/container_checkpoint.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kubectl_restore.kube.errors import ApiRefused, Forbidden
from kubectl_restore.kube.rbac import Denied, denied, remedy
from shared.errors import RestoreError, Unavailable

if TYPE_CHECKING:
    from kubectl_restore.kube.connection import Reply
    from kubectl_restore.kube.pods import Target

_RPC: Final = re.compile(r"rpc error: code = (?P<code>\w+) desc = (?P<text>.*?)\)?\s*$", re.DOTALL)
_LOG_FILE: Final = re.compile(r"(?:log file: ?|path= ?|[Ss]ee |check )(?P<path>/\S+?)(?:: unknown)?[\s,;)]*$")
_WRAPPED: Final = re.compile(
    r'checkpointing container "[0-9a-f]{64}" failed: |runc did not terminate successfully: exit status \d+: '
)
"""What containerd puts before CRIU's words."""


class CheckpointFailed(RestoreError):
    """CRIU failed; ``log`` is where its log is on the node, empty when that was not said."""

    def __init__(self, sentence: str, log: str = "") -> None:
        super().__init__("CheckpointFailed", sentence)
        self.log = log


@dataclass(frozen=True)
class _Known:
    pattern: str
    reason: str
    sentence: str
    """With {what} for the container, {node}, {runtime} and {text} for what was said."""


_NODE_CANNOT: Final = (
    _Known(
        r"method CheckpointContainer not implemented|unknown method CheckpointContainer|code = Unimplemented",
        "CheckpointUnsupported",
        "the runtime of node {node}{runtime} cannot take checkpoints; "
        "containerd 2.0 or newer and CRI-O 1.25 or newer can: upgrade it or use another node",
    ),
    _Known(
        r"(?i)criu.{0,40}(binary )?not found|executable file not found.*criu|criu is not available",
        "CriuMissing",
        "node {node} has no CRIU ({text}); install the package criu there",
    ),
    _Known(
        r"(?i)criu.*too old|requires at least criu",
        "CriuTooOld",
        "the CRIU of node {node} is too old ({text}); install a newer one",
    ),
    _Known(
        r"(?i)criu support is disabled|checkpoint/restore support not available|checkpoint.{0,30}disabled",
        "CheckpointDisabled",
        "checkpoints are switched off in the runtime's configuration on node {node} ({text}); "
        "containerd: enable_criu, CRI-O: container_level_enabled (enable_criu_support)",
    ),
    _Known(
        r"only CONTAINER_RUNNING containers can be checkpointed|is not running|cannot checkpoint.*(stopped|exited)",
        "ContainerNotRunning",
        "{what} does not run ({text}); only a running container can be checkpointed",
    ),
    _Known(
        r"(?i)no space left on device",
        "NodeDiskFull",
        "node {node} has no space left for the checkpoint; old ones lie in /var/lib/kubelet/checkpoints",
    ),
    _Known(
        r"(?i)already (being|in progress).*checkpoint|checkpoint.*already in progress",
        "CheckpointInProgress",
        "{what} is being checkpointed already; wait until that is done",
    ),
)


def refused(reply: Reply, target: Target, *, runtime: str = "", timeout_s: float | None = None) -> RestoreError:
    """The error for a kubelet's or API server's answer other than 200 to the checkpoint call.

    ``runtime`` is the node's runtime and version when it is known, ``timeout_s`` what the kubelet was asked for.
    """
    if reply.status == 401:
        return ApiRefused(
            f"the kubelet of node {target.node} does not know who you are (401 Unauthorized)",
            status=401,
            reason="Unauthorized",
        )
    if reply.status == 403:
        return _forbidden(reply, target)
    if reply.status == 404:
        return _not_found(reply, target)
    if reply.status in (502, 503):
        return Unavailable(
            "KubeletUnreachable",
            f"the kubelet of node {target.node} cannot be reached ({_shortened(reply.message)}); "
            f"'kubectl get node {target.node}' shows whether it is ready",
        )
    if reply.status in (408, 504):
        return _timed_out(target, timeout_s)
    if reply.status == 500:
        return _failed(reply.message, target, runtime, timeout_s)
    return ApiRefused(
        f"the kubelet of node {target.node} answered {reply.status}: {_shortened(reply.message)}", status=reply.status
    )


def _forbidden(reply: Reply, target: Target) -> RestoreError:
    missing = denied(reply.message)
    if missing is None:
        return Forbidden(f"not allowed: {_shortened(reply.message)}")
    if missing.by_kubelet:
        return Forbidden(
            f'the kubelet of node {target.node} does not let "{missing.user}" {missing.what}; '
            "an administrator can allow it",
            remedy=remedy(missing),
            reason="KubeletForbidden",
        )
    more = [Denied(missing.user, "get", "pods")] if missing.resource == "nodes/proxy" else []
    return Forbidden(
        f'user "{missing.user}" may not {missing.what}, which a checkpoint through the API server needs; '
        "an administrator can allow it",
        remedy=remedy(missing, *more),
    )


def _not_found(reply: Reply, target: Target) -> RestoreError:
    said = reply.message
    if reply.api_reason == "NotFound":
        return RestoreError("NodeNotFound", f"node {target.node} is no longer in the cluster ({said})")
    if re.search(r"container \S+ does not exist", said):
        return RestoreError(
            "ContainerNotFound",
            f"the kubelet of node {target.node} knows no {target.called}: it may just have been replaced; try again",
        )
    if "pod does not exist" in said:
        return RestoreError(
            "PodNotFound",
            f"the kubelet of node {target.node} does not know pod {target.namespace}/{target.pod}: "
            "it has ended or moved; try again",
        )
    if "timeout parameter" in said:
        return RestoreError("TimeoutInvalid", f"the kubelet of node {target.node} does not take this --timeout: {said}")
    return RestoreError(
        "CheckpointGateOff",
        f"the kubelet of node {target.node} has no checkpoint call: the feature gate ContainerCheckpoint "
        "(on by default since 1.30) or enableDebuggingHandlers is off in its configuration",
    )


def _failed(said: str, target: Target, runtime: str, timeout_s: float | None) -> RestoreError:
    inner = said.partition(" failed (")[2].strip().removesuffix(")") or said
    found = _RPC.search(said)
    text = found["text"] if found else inner
    if (found and found["code"] == "DeadlineExceeded") or "context deadline exceeded" in said:
        return _timed_out(target, timeout_s)
    fields = {
        "what": target.called,
        "node": target.node,
        "runtime": f" ({runtime})" if runtime else "",
        "text": _shortened(text),
    }
    for known in _NODE_CANNOT:
        if re.search(known.pattern, said):
            return RestoreError(known.reason, known.sentence.format(**fields))
    log = _LOG_FILE.search(text.strip())
    where = f"; CRIU's log is {log['path']} on node {target.node}" if log else ""
    reason = _WRAPPED.sub("", text[: log.start()] if log else text)
    return CheckpointFailed(
        f"the checkpoint of {target.called} failed on node {target.node}: {_shortened(reason)}{where}",
        log["path"] if log else "",
    )


def _timed_out(target: Target, timeout_s: float | None) -> RestoreError:
    limit = f"{timeout_s:g} s" if timeout_s else "the kubelet's time limit"
    return Unavailable(
        "CheckpointTimeout",
        f"the checkpoint of {target.called} was not finished within {limit}; "
        "give it more with --timeout (writing takes about a second for every 200 MiB of memory)",
    )


def _shortened(text: str) -> str:
    """One line, without the runtime's own wrapping."""
    line = " ".join(text.split()).rstrip(" :")
    return line if len(line) <= 600 else line[:600] + " …"
