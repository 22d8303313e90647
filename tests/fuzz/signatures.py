"""Signatures of images as a registry gives them; every one counts as verified, so that what it signs is read too."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from nri_plugin.signature import check, cosign
from nri_plugin.signature.token import service_account
from shared import oci
from shared.errors import Refused
from tests.fuzz.target import Target, attempt

_PAYLOAD = b'{"critical":{"type":"cosign container image signature","image":{"docker-manifest-digest":"sha256:0"}}}'
_SIGNED = base64.b64encode(b"signature").decode()


def _signature(content: bytes) -> None:
    """A signature manifest, a zero byte, and the blob that its layers name."""
    manifest, _, blob = content.partition(b"\0")
    with patch.object(cosign, "_verifies", lambda *_: True):
        for found in check._of_manifest(manifest, lambda _: blob, [object()]):  # type: ignore[list-item]
            assert isinstance(found, check.NotGood) or all(isinstance(digest, str) for digest in found)
    check._referrers(content)


def _seeds() -> Iterator[bytes]:
    notes = {cosign.SIGNATURE_ANNOTATION: _SIGNED}
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "subject": [{"digest": {"sha256": "0"}}],
    }
    envelope = {
        "payloadType": "application/vnd.in-toto+json",
        "payload": base64.b64encode(json.dumps(statement).encode()).decode(),
        "signatures": [{"sig": _SIGNED}],
    }
    bundle = json.dumps({"dsseEnvelope": envelope}).encode()
    for kind, blob in ((cosign.SIMPLE_SIGNING, _PAYLOAD), (cosign.BUNDLE_PREFIX, bundle)):
        layer = oci.Descriptor(kind, "sha256:" + "0" * 64, len(blob), notes)
        yield oci.encode(oci.Manifest(layer, (layer,), {}).as_json()) + b"\0" + blob


_PUBLIC = json.loads(ECAlgorithm.to_jwk(ec.derive_private_key(42, ec.SECP256R1()).public_key()))
_KEYS = json.dumps({"keys": [{**_PUBLIC, "kid": "a", "alg": "ES256", "use": "sig"}]})
_DECODE = jwt.decode


def _unverified(text: str, *_: Any, **__: Any) -> Any:
    return _DECODE(text, options={"verify_signature": False})


def _token(content: bytes) -> None:
    """A service account's token as it lies in a pod's volume."""
    question = {"token": content.decode(errors="replace"), "keys": _KEYS, "namespace": "shop", "pod_uid": "u"}
    attempt(lambda: service_account(question), (Refused,))
    with patch.object(jwt, "decode", _unverified):
        name = service_account(question)
    assert isinstance(name, str)


def _token_seeds() -> Iterator[bytes]:
    claims = {"sub": "system:serviceaccount:shop:app", "kubernetes.io": {"pod": {"uid": "u"}}}
    for header, payload in (({"alg": "ES256", "kid": "a"}, claims), ({"alg": "none"}, {}), ({"alg": "HS256"}, [])):
        parts = (json.dumps(header).encode(), json.dumps(payload).encode(), b"0" * 64)
        yield b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    yield b".".join([base64.urlsafe_b64encode(b'{"kid":' * 6000).rstrip(b"=")] * 3)


TARGETS = (
    Target("signature", _signature, _seeds, ()),
    Target("token", _token, _token_seeds, (Refused,)),
)
