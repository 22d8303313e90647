"""Signatures by the specifications, good and forged; the real cosign signs in tests/e2e/test_policy.py."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nri_plugin.signature.cosign import Key, NotGood, bundled, load_key, simple_signing
from shared.errors import Refused

DIGEST = "sha256:" + "ab" * 32
TYPE = "application/vnd.in-toto+json"
P256 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()
OTHER = ec.generate_private_key(ec.SECP256R1()).public_key()
Sign = Callable[[bytes], bytes]


def by_p256(message: bytes) -> bytes:
    return P256.sign(message, ec.ECDSA(hashes.SHA256()))


SIGNERS: dict[str, tuple[Sign, Key]] = {
    "ecdsa": (by_p256, P256.public_key()),
    "rsa": (lambda message: RSA.sign(message, padding.PKCS1v15(), hashes.SHA256()), RSA.public_key()),
    "ed25519": (ED25519.sign, ED25519.public_key()),
}
KEYS = [OTHER, P256.public_key()]


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def payload(**changes: Any) -> bytes:
    critical = {
        "identity": {"docker-reference": "registry.example/app"},
        "image": {"docker-manifest-digest": DIGEST},
        "type": "cosign container image signature",
        **changes,
    }
    return json.dumps({"critical": critical, "optional": None}).encode()


def statement(**changes: Any) -> bytes:
    return json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": "ab" * 32}, "annotations": {}}],
            "predicateType": "https://sigstore.dev/cosign/sign/v1",
            "predicate": {},
            **changes,
        }
    ).encode()


def bundle(signed: bytes, sign: Sign = by_p256, **changes: Any) -> bytes:
    encoded = f"DSSEv1 {len(TYPE)} {TYPE} {len(signed)} ".encode() + signed
    envelope = {"payload": text(signed), "payloadType": TYPE, "signatures": [{"sig": text(sign(encoded))}], **changes}
    media_type = "application/vnd.dev.sigstore.bundle.v0.3+json"
    return json.dumps({"mediaType": media_type, "verificationMaterial": {}, "dsseEnvelope": envelope}).encode()


@pytest.mark.parametrize("kind", SIGNERS)
def test_good_signature_gives_the_digest_that_it_is_for(kind: str) -> None:
    sign, key = SIGNERS[kind]
    assert simple_signing(payload(), text(sign(payload())), [OTHER, key]) == DIGEST
    assert bundled(bundle(statement(), sign), [OTHER, key]) == (DIGEST,)


@pytest.mark.parametrize("kind", SIGNERS)
def test_signature_by_another_key_is_not_good(kind: str) -> None:
    sign, _ = SIGNERS[kind]
    others = [OTHER, *(key for name, (_, key) in SIGNERS.items() if name != kind)]
    with pytest.raises(NotGood, match="by another key"):
        simple_signing(payload(), text(sign(payload())), others)
    with pytest.raises(NotGood, match="by another key"):
        bundled(bundle(statement(), sign), others)
    with pytest.raises(NotGood, match="by another key"):
        bundled(bundle(statement(), sign), [])


def test_changed_payload_is_not_what_was_signed() -> None:
    other = payload(image={"docker-manifest-digest": "sha256:" + "cd" * 32})
    with pytest.raises(NotGood, match="by another key"):
        simple_signing(other, text(by_p256(payload())), KEYS)
    forged = json.loads(bundle(statement()))
    forged["dsseEnvelope"]["payload"] = text(statement(subject=[{"digest": {"sha256": "cd" * 32}}]))
    with pytest.raises(NotGood, match="by another key"):
        bundled(json.dumps(forged).encode(), KEYS)


@pytest.mark.parametrize(
    ("signed", "says"),
    [
        (payload(type="atomic container signature"), "not a signature of a container image"),
        (payload(image={}), "without the digest"),
        (payload(image={"docker-manifest-digest": 5}), "without the digest"),
        (payload(image=None), "without the digest"),
        (b'{"critical": []}', "not a signature"),
        (b"[]", "malformed"),
        (b"{", "malformed"),
        (b"[" * 100000, "malformed"),
    ],
)
def test_good_signature_of_something_else_is_not_good(signed: bytes, says: str) -> None:
    with pytest.raises(NotGood, match=says):
        simple_signing(signed, text(by_p256(signed)), KEYS)


@pytest.mark.parametrize(
    "changes",
    [{"_type": "https://elsewhere/Statement/v1"}, {"predicateType": "https://slsa.dev/provenance/v1"}],
)
def test_statement_that_is_no_signature_is_not_good(changes: dict[str, Any]) -> None:
    with pytest.raises(NotGood, match="a statement about the image"):
        bundled(bundle(statement(**changes)), KEYS)


@pytest.mark.parametrize("subject", [None, [], {}, ["x"], [{}], [{"digest": None}], [{"digest": {"sha512": "ab"}}]])
def test_statement_about_nothing_signs_nothing(subject: Any) -> None:
    assert bundled(bundle(statement(subject=subject)), KEYS) == ()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"{}",
        b'{"messageSignature": {}}',
        b'{"dsseEnvelope": []}',
        bundle(statement(), payloadType="text/plain"),
        bundle(statement(), payload="***"),
        bundle(statement(), payload=None),
        bundle(statement(), signatures=[]),
        bundle(statement(), signatures=[None]),
        bundle(statement(), signatures=[{"sig": "AA=="}, {"sig": "AA=="}]),
        bundle(statement(), signatures=[{"sig": "AA=="}]),
        bundle(statement(), signatures=[{}]),
        bundle(b"not json"),
    ],
)
def test_malformed_bundle_is_not_good(content: bytes) -> None:
    with pytest.raises(NotGood):
        bundled(content, KEYS)


@pytest.mark.parametrize("signature", ["", "AA==", "not base64!", "AAAA" * 100])
def test_malformed_signature_is_not_good(signature: str) -> None:
    with pytest.raises(NotGood):
        simple_signing(payload(), signature, [key for _, key in SIGNERS.values()])


def test_only_keys_that_cosign_signs_with_are_taken() -> None:
    def pem(key: Any) -> str:
        return str(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())

    for _, key in SIGNERS.values():
        assert load_key(pem(key), "/key") == key
    for content in ("", "-----BEGIN PUBLIC KEY-----", pem(dsa.generate_private_key(1024).public_key())):
        with pytest.raises(Refused, match="/key is") as refused:
            load_key(content, "/key")
        assert refused.value.reason == "SignatureKeyInvalid"
