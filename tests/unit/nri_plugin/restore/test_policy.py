"""Who may restore what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nri_plugin.config import WAIVABLE, Policy, Waiver
from nri_plugin.restore.images import StoredImage
from nri_plugin.restore.policy import (
    check_base_registry,
    check_image_size,
    check_memory_size,
    check_pod,
    check_registry,
    waived,
)
from nri_plugin.restore.request import RestoreRequest
from shared.errors import Refused
from tests.support.reason_codes import python_codes

ROOT = Path(__file__).resolve().parents[4]
RequestFor = Callable[..., RestoreRequest]


def test_everybody_may_restore_by_default(request_for: RequestFor) -> None:
    check_pod(Policy(), request_for(pod_namespace="anything"))
    check_registry(Policy(), ["sha256:" + "a" * 64])
    check_image_size(Policy(), StoredImage("", "", "", (), {}, 1 << 60))
    check_memory_size(Policy(), 1 << 60)
    assert not waived(Policy(), request_for())


@pytest.mark.parametrize("patterns", [("batch",), ("b*",), ("other", "ba[tp]ch")])
def test_namespace_must_match_a_pattern(request_for: RequestFor, patterns: tuple[str, ...]) -> None:
    policy = Policy(namespaces=patterns)
    check_pod(policy, request_for(pod_namespace="batch"))
    for other in ("batch-2", "abatch", "Batch") if patterns != ("b*",) else ("abatch", "Batch"):
        with pytest.raises(Refused, match=other) as refused:
            check_pod(policy, request_for(pod_namespace=other))
        assert refused.value.reason == "NamespaceNotAllowed"


def test_empty_list_allows_nobody(request_for: RequestFor) -> None:
    with pytest.raises(Refused):
        check_pod(Policy(namespaces=()), request_for())
    with pytest.raises(Refused):
        check_registry(Policy(registries=()), ["registry.example/app:1"])


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("registry.example", "registry.example/deep/app:1"),
        ("registry.example/*", "registry.example/deep/app:1"),
        ("registry.example:5000/ckpt/*", "registry.example:5000/ckpt/a/b@sha256:" + "a" * 64),
        ("*.example/ckpt", "eu.registry.example/ckpt:2"),
        ("docker.io/library/*", "busybox"),
    ],
)
def test_registry_and_repository_must_match(pattern: str, name: str) -> None:
    check_registry(Policy(registries=("elsewhere.example", pattern)), ["localhost/other", name])


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("registry.example", "registry.example.evil.example/app:1"),
        ("registry.example", "evil.example/registry.example/app:1"),
        ("*.example/app", "evil.test/x.example/app:1"),
        ("registry.example/app", "registry.example/app/more:1"),
        ("registry.example/app", "registry.example:5000/app:1"),
        ("docker.io/library/*", "docker.io/somebody/app"),
        ("docker.io/library/*", "sha256:" + "a" * 64),
        ("**", "no reference at all"),
    ],
)
def test_what_only_looks_like_an_allowed_place_is_refused(pattern: str, name: str) -> None:
    with pytest.raises(Refused, match="registries") as refused:
        check_registry(Policy(registries=(pattern,)), [name])
    assert refused.value.reason == "RegistryNotAllowed"


def test_sizes_are_bounds() -> None:
    policy = Policy(image_bytes=100, memory_bytes=10)
    check_image_size(policy, StoredImage("", "", "", (), {}, 100))
    check_memory_size(policy, 10)
    for check in (
        lambda: check_image_size(policy, StoredImage("", "", "", (), {}, 101)),
        lambda: check_memory_size(policy, 11),
    ):
        with pytest.raises(Refused, match=r"101 bytes.*image_bytes|11 bytes.*memory_bytes") as refused:
            check()
        assert refused.value.reason == "TooLargeForPolicy"


def test_waivers_are_for_the_namespaces_they_name(request_for: RequestFor) -> None:
    policy = Policy(
        waive=(Waiver("SchedulerExceeds", ("batch-*", "x")), Waiver("PersonalityExceeds", ("batch-1",))),
    )
    assert waived(policy, request_for(pod_namespace="batch-1")) == {"SchedulerExceeds", "PersonalityExceeds"}
    assert waived(policy, request_for(pod_namespace="batch-2")) == {"SchedulerExceeds"}
    assert not waived(policy, request_for(pod_namespace="default"))


def test_what_can_be_waived_is_what_the_comparison_gives() -> None:
    assert set(python_codes([ROOT / "shared/errors.py", *(ROOT / "shared/judge").rglob("*.py")])) >= WAIVABLE


def test_base_image_must_be_from_an_allowed_place_too() -> None:
    policy = Policy(registries=("registry.example",))
    check_base_registry(policy, ["docker.io/library/busybox:1", "registry.example/busybox@sha256:" + "a" * 64])
    for names in (["evil.example/busybox:1"], ["sha256:" + "a" * 64], []):
        with pytest.raises(Refused, match="the checkpoint's base image") as refused:
            check_base_registry(policy, names)
        assert refused.value.reason == "RegistryNotAllowed"


def test_name_of_a_base_image_is_shown_so_that_a_terminal_does_not_obey_it() -> None:
    with pytest.raises(Refused) as refused:
        check_base_registry(Policy(registries=()), ["evil\x1b[2J\n" + "a" * 5000])
    assert refused.value.sentence.isprintable()
    assert len(refused.value.sentence) < 400
