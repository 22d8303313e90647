"""What the daemon holds in memory, session and worker together, after one restore and after twenty."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench.measurement import Benchmark, Result
from tests.bench.setting import Setting
from tests.e2e.node.kubelet import Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.processes import children
from tests.e2e.restoring import KEEPS, have, with_daemon

_GOAL_MIB: Final = 60.0
_IDLE_S: Final = 0.5
_RESTORES: Final = 20


def _memory_mib(node: Node, what: str) -> float:
    """Rss or Pss (proc_pid_smaps_rollup(5)) of the daemon's processes."""
    assert node.daemon
    pids = [node.daemon.pid, *children(node.daemon.pid)]
    assert len(pids) == 2, f"the daemon has {len(pids)} processes"
    return sum(_of(pid, what) for pid in pids)


def _of(pid: int, what: str) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(rf"^{what}: +(\d+) kB", rollup, re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def _measure(setting: Setting, runs: int) -> Iterator[Result]:
    node = setting.node("containerd-1.7")
    kubelet = Kubelet(node)
    taken = setting.small
    image = setting.images.of(taken, "layered")
    have(node, image)
    assert node.containerd
    # A daemon that compiles itself first is larger; an installed one is compiled.
    with_daemon(node, KEEPS)
    kubelet.run(taken.pod("compile"), taken.restored(image))
    kubelet.remove_all()
    node.stop_daemon()
    with_daemon(node, KEEPS)
    try:
        done = 0
        for wanted in (1, _RESTORES):
            for number in range(done, wanted):
                kubelet.run(taken.pod(f"restored-{number}"), taken.restored(image))
                kubelet.remove_all()
            done = wanted
            time.sleep(_IDLE_S)
            after = f"after {done} restore{'s' * (done > 1)}"
            for what, limit in (("Rss", _GOAL_MIB), ("Pss", None)):
                yield Result(
                    f"daemon's {what.upper()} {after}",
                    "MiB",
                    _memory_mib(node, what),
                    _of(node.containerd.pid, what),
                    "containerd",
                    goal=f"at most {_GOAL_MIB:g} MiB" if limit else "",
                    limit=limit,
                )
    finally:
        kubelet.remove_all()
        node.stop_daemon()


BENCHMARKS: Final = (Benchmark("memory", "the daemon's memory, session and worker together", 1, _measure),)
