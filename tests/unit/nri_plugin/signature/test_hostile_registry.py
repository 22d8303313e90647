"""A registry that answers what no registry should: one kind of error, and soon."""

from __future__ import annotations

import json
from email.message import Message

import pytest

from nri_plugin.signature.hosts import Host
from nri_plugin.signature.registry import Repository
from shared.errors import Unavailable
from shared.oci import parse_reference
from tests.fuzz.bounds import bounded
from tests.unit.nri_plugin.signature.registry_of import registry_of


@pytest.mark.parametrize(
    ("challenge", "token"),
    [
        ('Bearer realm="{}/token"', "a\r\nHost: evil"),
        ('Bearer realm="{}/token"', "\u20ac"),
        ('Bearer realm="{}/token"', ["a"]),
        ('Bearer realm="file:///etc/passwd"', "a"),
        ("Bearer " + "a" * 60_000, "a"),
    ],
)
def test_odd_challenges_and_tokens_leave_the_signature_unavailable(challenge: str, token: object) -> None:
    def answer(base: str, path: str, headers: Message) -> tuple[int, str, bytes]:
        asked = path.startswith("/token")
        return (200 if asked else 401), challenge.replace("{}", base), json.dumps({"token": token}).encode() * asked

    with registry_of(answer) as base, bounded(cpu_s=5), pytest.raises(Unavailable) as refusal:
        Repository(parse_reference("registry.example/a:1"), [Host(f"{base}/v2")]).manifest("sha256-0.sig")
    assert refusal.value.reason == "SignatureUnavailable"
    assert str(refusal.value).isprintable()
