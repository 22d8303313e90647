from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import grpc
import pytest

from nri_plugin.containerd import cri_pb2 as cri
from nri_plugin.containerd.client import Containerd
from nri_plugin.containerd.images import pull, reason_of
from shared.errors import Unavailable
from tests.support.fake_containerd import FakeContainerd

RECORDED = json.loads((Path(__file__).parents[3] / "data/containerd_pull_errors.json").read_text())
FAILURES = [
    (flavour, case, *failure.values()) for flavour, cases in RECORDED.items() for case, failure in cases.items()
]
"""What PullImage of containerd 1.7.24 and 2.1.9 said about registries that were away, refused, or sent nonsense."""
REFERENCE = "registry.example/team/app:1"
PULL = "ImageService/PullImage"


def failure(fake: FakeContainerd, containerd: Containerd, code: grpc.StatusCode, details: str, reference: str) -> str:
    fake.fail(PULL, code, details)
    with pytest.raises(Unavailable) as caught:
        pull(containerd, reference, timeout_s=20, cancelled=threading.Event())
    assert caught.value.reason == "ImagePullFailed"
    return caught.value.sentence


def test_image_is_pulled_through_the_cri(fake: FakeContainerd, containerd: Containerd) -> None:
    fake.answer(PULL, cri.PullImageResponse(image_ref="sha256:x"))
    pull(containerd, REFERENCE, timeout_s=20, cancelled=threading.Event())
    assert cri.PullImageRequest.FromString(fake.asked(PULL)[0]).image.image == REFERENCE


def test_logins_are_tried_in_turn_and_the_last_ones_error_is_told(fake: FakeContainerd, containerd: Containerd) -> None:
    fake.fail(PULL, grpc.StatusCode.UNKNOWN, f'failed to pull and unpack image "{REFERENCE}": 401')
    asked: list[str] = []

    def logins(reference: str) -> list[tuple[str, str]]:
        asked.append(reference)
        return [("one", "x"), ("two", "y")]

    with pytest.raises(Unavailable) as caught:
        pull(containerd, REFERENCE, timeout_s=20, cancelled=threading.Event(), logins=logins)
    assert caught.value.reason == "ImagePullFailed"
    sent = [cri.PullImageRequest.FromString(each).auth for each in fake.asked(PULL)]
    assert [(each.username, each.password) for each in sent] == [("one", "x"), ("two", "y")]
    assert asked == [REFERENCE]


@pytest.mark.parametrize(("flavour", "case", "reference", "code", "details"), FAILURES)
def test_real_failure_becomes_one_sentence_that_names_the_image_once(
    fake: FakeContainerd, containerd: Containerd, flavour: str, case: str, reference: str, code: str, details: str
) -> None:
    sentence = failure(fake, containerd, grpc.StatusCode[code], details, reference)
    assert sentence.startswith(f"{reference} cannot be pulled: ")
    assert sentence.count(reference) == 1
    assert len(sentence) < 300
    for noise in ("rpc error", "failed to pull", "failed to resolve", "failed to do request", "mount callback", "/v2/"):
        assert noise not in sentence


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("refused", "dial tcp 127.0.0.1:5999: connect: connection refused"),
        ("401", "pull access denied, repository does not exist or may require authorization"),
        ("bearer", "failed to authorize: failed to fetch anonymous token: the registry answered 401 Unauthorized"),
        ("403", "the registry answered 403 Forbidden"),
        ("404", "the registry has no such image"),
        ("429", "the registry answered 429 Too Many Requests"),
        ("500", "the registry answered 500 Internal Server Error"),
        ("digest", "the registry has no such image"),
        ("html", "unexpected media type text/html"),
        ("dns", "lookup registry.nowhere.invalid"),
        ("truncated", "a layer cannot be unpacked: unexpected EOF"),
        ("unknown-authority", "tls: failed to verify certificate: x509"),
    ],
)
def test_the_reason_itself_is_kept(case: str, says: str) -> None:
    for cases in RECORDED.values():
        assert says in reason_of(cases[case]["details"], cases[case]["reference"])


def test_words_of_containerd_that_nobody_foresaw_are_passed_on() -> None:
    assert reason_of("the moon is in the wrong phase", REFERENCE) == "the moon is in the wrong phase"
    assert reason_of(f'{REFERENCE}: the moon, says "{REFERENCE}"', REFERENCE) == 'the moon, says "it"'
    assert reason_of("", REFERENCE) == "containerd gave no reason"
    assert reason_of("x: unknown", REFERENCE) == "x"


def test_pull_that_takes_too_long_says_how_long(fake: FakeContainerd, containerd: Containerd) -> None:
    fake.hang(PULL, cri.PullImageResponse())
    with pytest.raises(Unavailable) as caught:
        pull(containerd, REFERENCE, timeout_s=0.2, cancelled=threading.Event())
    assert caught.value.reason == "ImagePullFailed"
    assert caught.value.sentence == f"{REFERENCE} was not pulled within 0.2 s"


def test_cancelled_pull_ends_at_once_and_at_the_runtime_too(fake: FakeContainerd, containerd: Containerd) -> None:
    fake.hang(PULL, cri.PullImageResponse())
    cancelled = threading.Event()
    threading.Timer(0.1, cancelled.set).start()
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        pull(containerd, REFERENCE, timeout_s=20, cancelled=cancelled)
    assert caught.value.reason == "Cancelled"
    assert time.monotonic() - started < 10
    assert fake.released.wait(10), "the runtime never heard that nobody waits any more"


def test_registry_that_is_away_is_a_pull_that_failed_whatever_the_code(
    fake: FakeContainerd, containerd: Containerd
) -> None:
    details = f'failed to pull and unpack image "{REFERENCE}": unexpected status from GET request to x: 503 Down'
    sentence = failure(fake, containerd, grpc.StatusCode.UNAVAILABLE, details, REFERENCE)
    assert sentence == f"{REFERENCE} cannot be pulled: the registry answered 503 Down"


def test_runtime_that_is_away_is_not_a_registry_that_refused(tmp_path: Path) -> None:
    client = Containerd(tmp_path / "nothing.sock", namespace="k8s.io", snapshotter="overlayfs")
    with pytest.raises(Unavailable) as caught:
        pull(client, REFERENCE, timeout_s=5, cancelled=threading.Event())
    client.close()
    assert caught.value.reason == "RuntimeAway"
