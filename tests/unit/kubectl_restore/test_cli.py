from __future__ import annotations

import json
import subprocess
import sys

import pytest

from kubectl_restore.cli import VERBS

HEAVY = (
    "_pytest",
    "asyncio",
    "google.protobuf",
    "grpc",
    "http.client",
    "kubernetes",
    "requests",
    "rich",
    "ssl",
    "tarfile",
    "urllib3",
    "websocket",
    "yaml",
    "zstandard",
)
"""What would make ``kubectl restore --help`` slow: each takes more than 5 ms to import."""

_LOADED = """
import json, sys
sys.argv = ["kubectl-restore", *sys.argv[1:]]
from kubectl_restore.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted(sys.modules)))
"""


def modules_of(*words: str) -> set[str]:
    """Modules that a command loads."""
    done = subprocess.run([sys.executable, "-c", _LOADED, *words], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("words", [["--help"], ["checkpoint", "--help"], ["build", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    loaded = modules_of(*words)
    assert "typer" in loaded
    assert sorted(loaded & set(HEAVY)) == []


def test_a_verb_loads_no_other() -> None:
    others = {f"kubectl_restore.verbs.{verb}" for verb in VERBS} - {"kubectl_restore.verbs.build"}
    assert not others & modules_of("build", "--help")
    assert others < modules_of("--help")


def test_every_verb_has_help() -> None:
    from kubectl_restore.cli import application

    for command in application().registered_commands:
        done = subprocess.run(
            [sys.executable, "-c", "from kubectl_restore.cli import main; main()", str(command.name), "-h"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith(f"Usage: kubectl restore {command.name} [OPTIONS]")


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_verbs_are_listed_on_standard_output(words: list[str]) -> None:
    program = "from kubectl_restore.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert all(f"\n  {verb} " in done.stdout for verb in VERBS)
    assert "completion" not in done.stdout
    assert done.stderr == ""
