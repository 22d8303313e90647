"""Signatures that were brought to the node beside the image, in part or whole."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nri_plugin.signature.check import check
from nri_plugin.signature.cosign import SIGNATURE_ANNOTATION, SIMPLE_SIGNING
from shared.errors import Refused
from shared.oci import digest_of

DIGEST = "sha256:" + "ab" * 32
KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
PAYLOAD = json.dumps(
    {"critical": {"type": "cosign container image signature", "image": {"docker-manifest-digest": DIGEST}}}
).encode()


def question(*stored: bytes) -> dict[str, object]:
    """A manifest of two signatures, of which the second is good; the node has the blobs ``stored``."""

    def layer(payload: bytes) -> dict[str, object]:
        signature = base64.b64encode(KEY.sign(payload, ec.ECDSA(hashes.SHA256()))).decode()
        size, notes = len(payload), {SIGNATURE_ANNOTATION: signature}
        return {"mediaType": SIMPLE_SIGNING, "digest": digest_of(payload), "size": size, "annotations": notes}

    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 2}
    manifest = {"schemaVersion": 2, "config": config, "layers": [layer(b"another"), layer(PAYLOAD)]}
    blobs = {digest_of(blob): base64.b64encode(blob).decode() for blob in stored}
    encoded = base64.b64encode(json.dumps(manifest).encode()).decode()
    there = [{"manifest": encoded, "blobs": blobs}]
    return {"repositories": [], "digests": [DIGEST], "keys": {"key": PEM}, "hosts": "/none", "stored": there}


def test_signature_beside_one_that_is_not_on_the_node_counts() -> None:
    check(question(PAYLOAD))


def test_signature_that_is_not_on_the_node_signs_nothing() -> None:
    with pytest.raises(Refused) as refused:
        check(question())
    assert refused.value.reason == "SignatureInvalid"
    assert "not whole on the node" in refused.value.sentence
