"""Leases go when nothing needs them, never under a preparation that has just begun."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from nri_plugin.config import Cache
from nri_plugin.containerd import containerd_pb2 as api
from nri_plugin.containerd.client import Containerd
from nri_plugin.restore.cache import ImageCache
from nri_plugin.restore.images import LEASE_PREFIX, StoredImage

DIGEST = "sha256:" + "a" * 64


class Leases:
    """The part of containerd that holds leases."""

    def __init__(self, *digests: str) -> None:
        self.held = {LEASE_PREFIX + digest.removeprefix("sha256:") for digest in digests}

    def leases(self, prefix: str) -> list[api.Lease]:
        return [api.Lease(id=each) for each in self.held if each.startswith(prefix)]

    def delete_lease(self, lease: str) -> None:
        self.held.discard(lease)


@pytest.fixture
def leases() -> Leases:
    return Leases(DIGEST)


@pytest.fixture
def cache_of(tmp_path: Path, leases: Leases) -> Callable[[int], ImageCache]:
    return lambda unused: ImageCache(cast(Containerd, leases), tmp_path, Cache(unused=unused))


@contextmanager
def unlocked(digest: str) -> Iterator[None]:
    yield


def image() -> StoredImage:
    return StoredImage(DIGEST, DIGEST, "sha256:" + "c" * 64, (), {})


def test_lease_that_nobody_remembers_goes(leases: Leases, cache_of: Callable[[int], ImageCache]) -> None:
    cache_of(8).prune(frozenset, unlocked)
    assert not leases.held


def test_remembered_lease_stays_within_the_limit_and_goes_beyond(
    leases: Leases, cache_of: Callable[[int], ImageCache]
) -> None:
    cache_of(1).remember(image(), "registry.example/app:1")
    cache_of(1).prune(frozenset, unlocked)
    assert leases.held
    cache_of(0).prune(frozenset, unlocked)
    assert not leases.held


@pytest.mark.parametrize("remembered", [False, True])
def test_lease_of_a_preparation_that_begins_meanwhile_stays(
    leases: Leases, cache_of: Callable[[int], ImageCache], remembered: bool
) -> None:
    cache = cache_of(0)
    if remembered:
        cache.remember(image(), "registry.example/app:1")
    in_use: set[str] = set()

    @contextmanager
    def begins_while_we_wait(digest: str) -> Iterator[None]:
        in_use.add(digest)
        yield

    cache.prune(lambda: frozenset(in_use), begins_while_we_wait)
    assert leases.held


def test_replicas_note_their_image_at_once(tmp_path: Path, cache_of: Callable[[int], ImageCache]) -> None:
    cache = cache_of(8)
    with ThreadPoolExecutor(8) as pool:
        for round_ in range(50):
            for done in [pool.submit(cache.remember, image(), f"registry/{round_}-{each}") for each in range(8)]:
                done.result()
    assert len([entry for entry in (tmp_path / "images").iterdir() if not entry.name.startswith(".")]) == 1


def test_entry_that_is_dropped_while_it_is_noted_or_looked_at_costs_nothing(
    leases: Leases, cache_of: Callable[[int], ImageCache]
) -> None:
    cache = cache_of(0)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(300):
            noting = [pool.submit(cache.remember, image(), "registry.example/app:1") for _ in range(2)]
            dropping = [pool.submit(cache.prune, frozenset, unlocked) for _ in range(2)]
            for done in (*noting, *dropping):
                done.result()
    cache.remember(image(), "registry.example/app:1")
    assert cache._lines(cache._entry(DIGEST)) == [DIGEST, "registry.example/app:1"]
