"""What is lowered in the restored processes instead of refused."""

from __future__ import annotations

import stat
from dataclasses import replace

import pytest

from shared.criu.dump import Dump
from shared.judge.corrections import RLIMITS, Corrections, corrections
from shared.spec import Rlimit, RuntimeSpec
from tests.support.pods import Security, read, spec, synthetic_dump

NOFILE = Rlimit("RLIMIT_NOFILE", 512, 1024)
NOTHING = Corrections(None, ())


def dump_with(*, nofile: int = 1024, score: int | None = 1000, pid: int = 2) -> Dump:
    """A dump of two processes; ``pid`` has other limits than the first, whose are 1."""
    made = synthetic_dump(Security())
    for each in (1, 2):
        for limit in made.core(each).tc.rlimits.rlimits:
            limit.cur = limit.max = 1
    core = made.core(pid).tc
    core.rlimits.rlimits[7].max = nofile
    if score is None:
        core.ClearField("oom_score_adj")
    else:
        core.oom_score_adj = score
    return read(made)


def live(*limits: Rlimit, score: int | None = 1000, **changes: object) -> RuntimeSpec:
    return replace(spec(Security()), rlimits=limits, oom_score_adj=score, **changes)  # type: ignore[arg-type]


def asked(dump: Dump, of: RuntimeSpec) -> Corrections:
    """What the pod itself asks for, without what it has from the runtime."""
    return replace(corrections(dump, of), inherited=())


@pytest.mark.parametrize("nofile", [0, 1, 1024])
def test_limits_within_the_pods_stay(nofile: int) -> None:
    assert asked(dump_with(nofile=nofile), live(NOFILE)) == NOTHING


@pytest.mark.parametrize("nofile", [1025, (1 << 64) - 1])
@pytest.mark.parametrize("pid", [1, 2])
def test_one_process_beyond_the_pods_limit_lowers_it_for_all(nofile: int, pid: int) -> None:
    assert asked(dump_with(nofile=nofile, pid=pid), live(NOFILE)) == Corrections(None, (NOFILE,))


def test_limits_that_the_pod_does_not_set_are_the_runtimes() -> None:
    inherited = {limit.type: limit.hard for limit in corrections(dump_with(nofile=1 << 40), live()).inherited}
    assert inherited == {kind: 1 << 40 if kind == "RLIMIT_NOFILE" else 1 for kind in RLIMITS}
    named = corrections(dump_with(nofile=1 << 40), live(NOFILE)).inherited
    assert {limit.type for limit in named} == set(RLIMITS) - {"RLIMIT_NOFILE"}


def test_container_that_may_raise_limits_itself_keeps_them() -> None:
    may = live(capabilities=spec(Security(add=("CAP_SYS_RESOURCE",))).capabilities)
    assert corrections(dump_with(nofile=1 << 40, score=None), may) == NOTHING


@pytest.mark.parametrize(("dumped", "asked", "set_to"), [
    (999, 1000, 1000), (-1000, 2, 2), (-1, None, 0),
    (1000, 1000, None), (1000, -997, None), (None, 1000, 1000), (0, None, 0), (0, -997, -997), (None, None, 0),
])  # fmt: skip
def test_score_is_only_ever_raised(dumped: int | None, asked: int | None, set_to: int | None) -> None:
    assert corrections(dump_with(score=dumped), live(score=asked)).oom_score_adj == set_to


@pytest.mark.parametrize(("mode", "found"), [(0o555, 0o555), (0o1777, 0o1777), (0o755, None)])
@pytest.mark.parametrize("add", [(), ("CAP_SYS_RESOURCE",)])
def test_root_directory_gets_the_mode_that_it_had(mode: int, found: int | None, add: tuple[str, ...]) -> None:
    made = synthetic_dump(Security())
    root = next(each for each in made.images["files.img"] if each.reg.name == b"/")  # type: ignore[attr-defined]
    root.reg.mode = stat.S_IFDIR | mode  # type: ignore[attr-defined]
    of = live(capabilities=spec(Security(add=add)).capabilities)
    assert corrections(read(made), of).root_mode == found


def test_container_that_may_raise_its_limits_itself_keeps_them() -> None:
    sets = spec(Security(add=("CAP_SYS_RESOURCE",))).capabilities
    asked = live(NOFILE, capabilities=sets)
    assert corrections(dump_with(nofile=1 << 40, score=-1000), asked) == NOTHING
