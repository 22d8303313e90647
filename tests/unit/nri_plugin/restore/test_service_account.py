from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nri_plugin.config import Policy
from nri_plugin.restore.policy import check_pod
from nri_plugin.restore.request import RequestMount, RestoreRequest
from nri_plugin.restore.service_account import MOUNTED_AT, service_account_of
from shared.errors import Refused
from tests.support.service_account import Issuer

CLUSTER = Issuer()
RequestFor = Callable[..., RestoreRequest]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.jwks"
    path.write_text(CLUSTER.keys())
    return path


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "volume"
    path.mkdir()
    return path


@pytest.fixture
def request_(request_for: RequestFor, volume: Path) -> RestoreRequest:
    mounts = (RequestMount("/data", "bind", "/data", ()), RequestMount(MOUNTED_AT, "bind", str(volume), ()))
    return replace(request_for(pod_namespace="batch", pod_uid="u1"), mounts=mounts)


def test_allowed_service_account_is_known_by_its_token(request_: RestoreRequest, volume: Path, keys: Path) -> None:
    (volume / "token").write_text(CLUSTER.token("batch", "builder", "u1"))
    assert service_account_of(request_, keys) == "builder"
    check_pod(Policy(service_accounts=("other/x", "batch/b*"), service_account_keys=keys), request_)
    for patterns in (("batch/other",), ("other/builder",), ()):
        with pytest.raises(Refused, match="batch/builder") as refused:
            check_pod(Policy(service_accounts=patterns, service_account_keys=keys), request_)
        assert refused.value.reason == "ServiceAccountNotAllowed"


def test_pod_without_a_token_is_refused(request_for: RequestFor, keys: Path) -> None:
    with pytest.raises(Refused, match="automountServiceAccountToken") as refused:
        service_account_of(request_for(mounts=()), keys)
    assert refused.value.reason == "ServiceAccountUnknown"


def test_token_that_is_no_file_is_not_waited_for(request_: RestoreRequest, volume: Path, keys: Path) -> None:
    os.mkfifo(volume / "token")
    with pytest.raises(Refused, match="no service-account token"):
        service_account_of(request_, keys)
    (volume / "token").unlink()
    (volume / "token").symlink_to("/dev/zero")
    with pytest.raises(Refused, match="no service-account token"):
        service_account_of(request_, keys)


def test_keys_that_went_away_are_named(request_: RestoreRequest, volume: Path, keys: Path) -> None:
    (volume / "token").write_text(CLUSTER.token("batch", "builder", "u1"))
    keys.unlink()
    with pytest.raises(Refused, match=str(keys)):
        service_account_of(request_, keys)
