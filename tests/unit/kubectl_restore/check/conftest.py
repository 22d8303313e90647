from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubectl_restore.check.examine import Question, examine
from kubectl_restore.check.findings import Report
from kubectl_restore.image.access import Access
from kubectl_restore.reading import OpenCheckpoint
from shared.archive import open_checkpoint
from shared.node_facts import NodeFacts
from shared.preflight.findings import Finding
from tests.support.checkpoints import SyntheticDump, containerd, tar_of

NODE = NodeFacts(
    name="node-1",
    os="linux",
    architecture="x86_64",
    kernel="6.8.0-41-generic",
    criu_version="4.2.1",
    criu_missing=False,
    cgroup_version=2,
    cpu="A CPU",
    cpu_flags=frozenset({"sse2", "avx", "avx2"}),
    cpu_judged=None,
)
Examine = Callable[..., Report]


@pytest.fixture
def examined(tmp_path: Path) -> Examine:
    """The report on a dump, put into a checkpoint of containerd unless it is one already; the machine is NODE."""

    def look(
        content: SyntheticDump | Mapping[str, bytes],
        *,
        base: str | None = "none",
        pod: Any = None,
        **machine: Any,
    ) -> Report:
        files = containerd(content) if isinstance(content, SyntheticDump) else content
        path = tmp_path / "checkpoint.tar"
        path.write_bytes(tar_of(files))
        with open_checkpoint(path) as opened:
            question = Question(replace(NODE, **machine), base, pod)
            return examine(OpenCheckpoint("checkpoint.tar", opened, None), question, lambda host: Access("always"))

    return look


def codes(report: Report) -> set[str]:
    return {finding.code for finding in report.findings}


def one(report: Report, code: str) -> Finding:
    found = [finding for finding in report.findings if finding.code == code]
    assert len(found) == 1, report
    return found[0]
