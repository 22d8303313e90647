"""A checkpoint against the live container, once for all replicas of a pod.

A verdict follows from the checkpoint image's content, the part of the live spec that the rules read, what the pod fixed
of its identity, and what is waived. Only what passed is remembered: a refusal is found again each time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Final

from shared.criu.dump import Dump
from shared.judge import Judgement, NodeSide, PodIdentity, judge
from shared.judge.namespaces import is_the_nodes
from shared.judge.paths import is_bind
from shared.spec import Namespace, RuntimeSpec
from shared.special_files import SpecialFile

UNREAD: Final = frozenset({
    "args", "env", "cwd", "umask", "root_path", "hostname", "domainname", "cgroups_path", "annotations",
})  # fmt: skip
"""Fields of the live spec that no rule looks at. No rule looks at the source of a bind mount, either."""
VERDICTS_MAX: Final = 256


def relevant(live: RuntimeSpec, *, shared: Callable[[Namespace], bool] = is_the_nodes) -> bytes:
    """A digest of everything that the rules read of the live spec, and of whose the namespaces are."""
    parts: dict[str, object] = {each.name: getattr(live, each.name) for each in fields(live) if each.name not in UNREAD}
    parts["mounts"] = [
        (each.destination, each.type, each.options, "" if is_bind(each.type, each.options) else each.source)
        for each in live.mounts
    ]
    parts["namespaces"] = [(each.type, bool(each.path), shared(each)) for each in live.namespaces]
    parts["capabilities"] = [sorted(getattr(live.capabilities, each.name)) for each in fields(live.capabilities)]
    parts["sysctl"] = sorted(live.sysctl.items())
    return sha256(repr(parts).encode(errors="surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement, and what tells it from others of the same checkpoint image."""

    judgement: Judgement
    key: str


class Verdicts:
    """What passed, the latest ``VERDICTS_MAX``; safe to use from several threads."""

    def __init__(self) -> None:
        self._passed: OrderedDict[tuple[object, ...], Verdict] = OrderedDict()
        self._lock = threading.Lock()

    def verify(
        self,
        digest: str,
        dump: Dump,
        dumped: RuntimeSpec,
        live: RuntimeSpec,
        identity: PodIdentity,
        special: Sequence[SpecialFile],
        waived: Set[str],
        node: NodeSide,
    ) -> Verdict:
        """Raises what ``judge`` does.

        ``digest`` stands for all that comes from the checkpoint image: ``dump``, ``dumped`` and ``special``. One at a
        time, so that replicas that start at once verify once.
        """
        key = (digest, relevant(live), identity, frozenset(waived), node)
        with self._lock:
            if (passed := self._passed.get(key)) is None:
                judgement = judge(dump, dumped, live, identity, special, node=node, waived=waived)
                passed = Verdict(judgement, sha256(repr(key).encode()).hexdigest()[:16])
                self._passed[key] = passed
                if len(self._passed) > VERDICTS_MAX:
                    self._passed.popitem(last=False)
            self._passed.move_to_end(key)
            return passed
