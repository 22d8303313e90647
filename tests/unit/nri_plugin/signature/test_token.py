"""A service account is believed of nobody but the API server, and for no other pod."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from nri_plugin.signature.token import service_account
from shared.errors import Refused
from tests.support.service_account import Issuer

CLUSTER = Issuer()
NEWER = Issuer(ec.generate_private_key(ec.SECP256R1()), "second")


def ask(token: str, keys: str = CLUSTER.keys(), namespace: str = "batch", pod_uid: str = "u1") -> str:
    return service_account({"token": token, "keys": keys, "namespace": namespace, "pod_uid": pod_uid})


@pytest.mark.parametrize("issuer", [CLUSTER, NEWER], ids=["RS256", "ES256"])
def test_token_of_this_pod_names_its_service_account(issuer: Issuer) -> None:
    assert ask(issuer.token("batch", "builder", "u1"), issuer.keys()) == "builder"


def test_expired_token_still_says_whose_the_pod_is() -> None:
    assert ask(CLUSTER.token("batch", "builder", "u1", exp=1, nbf=0, iat=0)) == "builder"


def test_token_is_checked_with_the_key_that_it_names() -> None:
    both = {"keys": [each for issuer in (CLUSTER, NEWER) for each in json.loads(issuer.keys())["keys"]]}
    assert ask(NEWER.token("batch", "builder", "u1"), json.dumps(both)) == "builder"


def unsigned(claims: dict[str, Any]) -> str:
    header = {"alg": "none", "kid": "first"}
    parts = [base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in (header, claims)]
    return ".".join([*parts, ""])


def signed_with_the_public_key() -> str:
    """A token whose algorithm makes the key that everybody has the secret."""
    secret = json.loads(CLUSTER.keys())["keys"][0]["n"]
    return jwt.encode(CLUSTER.claims("batch", "builder", "u1"), secret, "HS256", headers={"kid": "first"})


@pytest.mark.parametrize(
    ("token", "says"),
    [
        (CLUSTER.token("batch", "builder", "u2"), "for another pod"),
        (CLUSTER.token("default", "builder", "u1"), "for another namespace"),
        (CLUSTER.token("batch", "builder", "u1", **{"kubernetes.io": {}}), "for another pod"),
        (CLUSTER.token("batch", "builder", "u1", **{"kubernetes.io": 5}), "for another pod"),
        (CLUSTER.token("batch", "builder", "u1", sub="system:serviceaccount:batchy:builder"), "for another namespace"),
        (CLUSTER.token("batch", "builder", "u1", sub="somebody"), "for another namespace"),
        (NEWER.token("batch", "builder", "u1"), "by a key that"),
        (Issuer().token("batch", "builder", "u1"), "not good"),
        (CLUSTER.token("batch", "builder", "u1")[:-8] + "AAAAAAAA", "not good"),
        (unsigned(CLUSTER.claims("batch", "builder", "u1")), "not good"),
        (signed_with_the_public_key(), "not good"),
        ("", "not good"),
        ("a.b.c", "not good"),
        ("token of batch/web", "not good"),
    ],
)
def test_anything_else_proves_nothing(token: str, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        ask(token)
    assert refused.value.reason == "ServiceAccountUnknown"


@pytest.mark.parametrize(
    "keys",
    [
        "",
        "[]",
        "{}",
        '{"keys": []}',
        '{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "first", "alg": "HS256"}]}',
        "not json",
    ],
)
def test_keys_that_prove_nothing_are_said(keys: str) -> None:
    with pytest.raises(Refused, match="service_account_keys") as refused:
        ask(CLUSTER.token("batch", "builder", "u1"), keys)
    assert refused.value.reason == "ServiceAccountUnknown"
