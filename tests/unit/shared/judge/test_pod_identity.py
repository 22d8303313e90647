from __future__ import annotations

import json
from typing import Any

import pytest

from shared.judge import PodIdentity, pod_identity


def record(**context: Any) -> bytes:
    """containerd's CRI metadata of a container, reduced to what is read."""
    config = {"metadata": {"name": "c"}, "linux": {"security_context": context}}
    return json.dumps({"Version": "v1", "Metadata": {"ID": "x", "Config": config}}).encode()


def test_pod_that_names_no_group_leaves_it_to_the_image() -> None:
    assert pod_identity(record(run_as_user={"value": 1000})) == PodIdentity(group_fixed=False, groups_fixed=False)
    assert pod_identity(record(run_as_user={}, supplemental_groups_policy=0)) == PodIdentity(False, False)


def test_group_that_the_pod_names_is_fixed_zero_too() -> None:
    assert pod_identity(record(run_as_group={})).group_fixed
    assert pod_identity(record(run_as_group={"value": 5})).group_fixed


def test_strict_policy_keeps_the_images_groups_out() -> None:
    assert pod_identity(record(supplemental_groups_policy=1)) == PodIdentity(group_fixed=False, groups_fixed=True)


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b'{"Metadata":null}',
        b'{"Metadata":{"Config":{"linux":{"security_context":null}}}}',
        b'{"Metadata":{"Config":{"linux":[]}}}',
    ],
)
def test_record_that_cannot_be_read_counts_as_fixed(metadata: bytes) -> None:
    assert pod_identity(metadata) == PodIdentity(group_fixed=True, groups_fixed=True)
