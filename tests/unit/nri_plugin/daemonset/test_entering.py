"""Going to the node from its daemon's pod."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from nri_plugin.daemonset import entering
from shared.errors import RestoreError
from shared.run import run
from tests.e2e.node.places import CHECKOUT

ENTER = """
import os, sys
from nri_plugin.daemonset.entering import enter_node, kept
from pathlib import Path
os.chdir(sys.argv[1])
folder = kept(Path("only-here"))
enter_node()
print(os.getcwd(), Path(sys.argv[1], "only-here").exists(), (folder / "token").read_text())
"""
ENVIRONMENT = {"PYTHONPATH": str(CHECKOUT), "PATH": os.environ["PATH"]}


def test_node_is_entered_and_a_folder_of_the_pod_taken_along(tmp_path: Path) -> None:
    pod = 'mount -t tmpfs tmpfs "$4"; mkdir "$4/only-here"; echo secret > "$4/only-here/token"; exec "$@"'
    node = 'unshare --mount sh -euc "$0" sh "$@"; exit'
    words = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-euc", node, pod]
    words += [sys.executable, "-c", ENTER, str(tmp_path)]
    assert run(words, timeout_s=30, env=ENVIRONMENT).stdout.split() == ["/", "False", "secret"]


def test_without_the_nodes_processes_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(RestoreError, match="it needs hostPID: true") as refused:
        entering.enter_node()
    assert refused.value.reason == "HostPidMissing"


def test_without_privilege_it_says_so(tmp_path: Path) -> None:
    words = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all", sys.executable, "-c", ENTER, tmp_path]
    done = run(words, timeout_s=30, check=False, env=ENVIRONMENT)
    assert re.search("the node's mount namespace: .* denied; the pod must be privileged", done.stderr)


def test_folder_that_is_not_there_is_not_kept(tmp_path: Path) -> None:
    assert entering.kept(tmp_path / "none") is None
