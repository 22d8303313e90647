"""Where the node reads signatures, and what it says when it cannot."""

from __future__ import annotations

import json
from email.message import Message

import pytest

from nri_plugin.signature.hosts import Host
from nri_plugin.signature.registry import Repository
from shared.errors import Unavailable
from shared.oci import digest_of, parse_reference
from tests.support.fake_registry import TLS, FakeRegistry
from tests.unit.nri_plugin.signature.registry_of import registry_of

CONTENT = b'{"schemaVersion": 2}'
REFERENCE = parse_reference("registry.example/team/app:1")
NOBODY = Host("http://127.0.0.1:9/v2")


def repository(*hosts: Host) -> Repository:
    return Repository(REFERENCE, hosts)


def unavailable(repository: Repository, target: str = "x") -> str:
    with pytest.raises(Unavailable) as error:
        repository.manifest(target)
    assert error.value.reason == "SignatureUnavailable"
    assert error.value.sentence.startswith("the signatures of registry.example/team/app cannot be read")
    return error.value.sentence


def test_token_is_asked_for_once_as_anybody_without_what_is_for_the_registry() -> None:
    """By a registry as Docker Hub is one, given a header of the host's."""
    asked: list[str] = []

    def answer(base: str, path: str, headers: Message) -> tuple[int, str, bytes]:
        asked.append(path + " with header" * ("X-Secret" in headers))
        challenge = f'Bearer realm="{base}/token",service="here"'
        if path.startswith("/token"):
            return 200, challenge, json.dumps({"token": "anybody"}).encode()
        return (200, challenge, CONTENT) if headers["Authorization"] == "Bearer anybody" else (401, challenge, b"")

    with registry_of(answer) as base:
        reading = repository(Host(f"{base}/v2", headers={"X-Secret": "x"}))
        assert reading.manifest("1") == reading.manifest("2") == CONTENT
    tokens = [each for each in asked if each.startswith("/token")]
    assert tokens == ["/token?service=here&scope=repository%3Ateam%2Fapp%3Apull"]
    assert asked[-1] == "/v2/team/app/manifests/2 with header"


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_registry_that_wants_a_login_is_said_to(auth: str) -> None:
    with FakeRegistry(auth=auth) as fake:
        assert "it wants a login" in unavailable(repository(Host(f"http://{fake.host}/v2")))


def test_next_host_is_asked_where_one_does_not_answer_or_have_it() -> None:
    with FakeRegistry() as empty, FakeRegistry() as full:
        full.add_manifest("team/app", "x", CONTENT)
        first, last = Host(f"http://{empty.host}/v2"), Host(f"http://{full.host}/v2")
        assert repository(NOBODY, first, last).manifest("x") == CONTENT
        assert repository(first, last).manifest("other") is None


def test_what_one_host_lacks_another_may_have_that_does_not_answer() -> None:
    with FakeRegistry() as empty:
        assert "refused" in unavailable(repository(NOBODY, Host(f"http://{empty.host}/v2")))


def test_certificate_must_be_trusted() -> None:
    with FakeRegistry(tls=True) as fake:
        fake.add_manifest("team/app", "x", CONTENT)
        base = f"https://{fake.host}/v2"
        assert "certificate" in unavailable(repository(Host(base)))
        assert repository(Host(base, ca=(TLS / "ca.pem",))).manifest("x") == CONTENT
        assert repository(Host(base, verify=False)).manifest("x") == CONTENT


def test_content_must_have_the_digest_that_was_asked_for() -> None:
    with FakeRegistry() as fake:
        reading = repository(Host(f"http://{fake.host}/v2"))
        digest = fake.add_manifest("team/app", "x", CONTENT)
        assert reading.manifest(digest) == CONTENT
        fake.manifests["team/app", digest] = CONTENT + b" "
        assert "something else" in unavailable(reading, digest)
        blob = fake.add_blob("team/app", b"payload")
        assert reading.blob(blob, 100) == b"payload"
        fake.blobs["team/app", blob] = b"another"
        with pytest.raises(Unavailable, match="something else"):
            reading.blob(blob, 100)


def test_blob_above_the_limit_is_not_taken() -> None:
    with FakeRegistry() as fake:
        blob = fake.add_blob("team/app", b"x" * 101)
        with pytest.raises(Unavailable, match="more than 100 bytes"):
            repository(Host(f"http://{fake.host}/v2")).blob(blob, 100)


def test_missing_blob_is_no_answer() -> None:
    with FakeRegistry() as fake, pytest.raises(Unavailable, match="is not there"):
        repository(Host(f"http://{fake.host}/v2")).blob(digest_of(b""), 100)


def test_referrers_are_read_from_their_tag_where_the_registry_has_no_api() -> None:
    digest = digest_of(CONTENT)
    with FakeRegistry() as fake:
        reading = repository(Host(f"http://{fake.host}/v2"))
        assert reading.referrers(digest) is None
        fake.add_manifest("team/app", digest.replace(":", "-"), CONTENT)
        assert reading.referrers(digest) == CONTENT
        assert fake.count("GET", "/referrers/") == 2
