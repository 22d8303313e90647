"""What restore-runc adds to the subcommands it hands on: everything but create, start and restore."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.bench.bare_restore import TIMED
from tests.bench.measurement import Benchmark, Result, compare
from tests.bench.setting import Setting
from tests.e2e.node.containerd_config import WRAPPER
from tests.e2e.node.node import Node

_GOAL_MS: Final = 1.0
_RUNTIME: Final = "/var/tmp/true"
"""Busybox, which by this name does nothing."""
_CONFIGURATION: Final = "/var/tmp/restore-runc.conf"
_STATE: Final = ("--root", "/run/x", "--log", "/run/x/log.json", "--log-format", "json", "state", "0123456789abcdef")


def _milliseconds(node: Node, rounds: int, *programs: tuple[str, ...], **env: str) -> list[list[float]]:
    words = [word for program in programs for word in ("--", *program)][1:]
    said = node.run(["/usr/bin/python3", TIMED, str(rounds), *words], timeout_s=120, env=env).stdout
    return [[float(word) * 1000 for word in line.split()] for line in said.splitlines()]


def _measure(setting: Setting, runs: int) -> Iterator[Result]:
    node = setting.node("containerd-1.7")
    node.sh(f"ln -sf /bin/busybox {_RUNTIME}; echo runtime={_RUNTIME} >{_CONFIGURATION}")
    wrapped, direct = _milliseconds(
        node, runs, (WRAPPER, *_STATE), (_RUNTIME, *_STATE), NRI_RESTORE_RUNC_CONF=_CONFIGURATION
    )
    added = [ours - theirs for ours, theirs in zip(wrapped, direct, strict=True)]
    yield compare(
        "restore-runc state, added to a trivial runtime",
        "ms",
        added,
        goal=f"at most {_GOAL_MS:g} ms",
        limit=lambda _: _GOAL_MS,
    )
    wrapped, direct = _milliseconds(node, runs, (WRAPPER, "--version"), ("runc", "--version"))
    yield compare("restore-runc --version", "ms", wrapped, direct, "runc --version")
    node.sh(f"rm {_RUNTIME} {_CONFIGURATION}")


BENCHMARKS: Final = (Benchmark("subcommands", "restore-runc on subcommands it hands on", 300, _measure),)
