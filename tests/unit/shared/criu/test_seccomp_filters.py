"""Which threads CRIU confines by the filters that it keeps for the leader alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.criu.seccomp_filters import LOG, TSYNC, SeccompFilter, chain, shares_filters
from shared.criu.tasks import Task
from tests.support.pods import Security, dump

NEWER = SeccompFilter(bytes(8), None, TSYNC)
OLDER = SeccompFilter(bytes(8), 0, TSYNC | LOG)


def task(*modes: int) -> Task:
    """With threads of these seccomp modes, the leader first."""
    (found,) = dump(replace(Security(), seccomp=True)).tasks[:1]
    return replace(found, threads=tuple(replace(found.threads[0], seccomp_mode=each) for each in modes))


def test_chain_begins_with_the_oldest_filter() -> None:
    assert list(chain((NEWER, OLDER), 1)) == [OLDER, NEWER]


@pytest.mark.parametrize(
    ("modes", "filters", "shared"),
    [
        ((2,), (NEWER,), True),
        ((2, 0, 0), (NEWER,), True),
        ((2, 0), (replace(NEWER, flags=0),), False),
        ((2, 2), (NEWER,), False),
        ((2, 1), (NEWER,), False),
        ((0, 0), (NEWER,), False),
        ((1, 0), (NEWER,), False),
        ((), (), False),
    ],
)
def test_filters_are_shared_where_no_other_thread_has_any(
    modes: tuple[int, ...], filters: tuple[SeccompFilter, ...], shared: bool
) -> None:
    assert shares_filters(task(*modes), filters) is shared


def test_every_filter_must_be_marked() -> None:
    found = replace(task(2, 0).threads[0], seccomp_filter=1)
    both = replace(task(2, 0), threads=(found, task(0).threads[0]))
    assert shares_filters(both, (NEWER, OLDER))
    assert not shares_filters(both, (replace(NEWER, flags=0), OLDER))
