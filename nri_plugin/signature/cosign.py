"""Cosign's signatures of an image, verified against public keys alone: no certificates, no transparency log.

Sources: sigstore/cosign specs/SIGNATURE_SPEC.md (simple signing: cosign 1 and 2) and specs/BUNDLE_SPEC.md with
sigstore/protobuf-specs sigstore_bundle.proto (bundles: cosign 3), secure-systems-lab/dsse protocol.md (PAE), in-toto
attestation spec v1 (Statement). Everything here is untrusted until a key has verified it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from shared.errors import Refused

SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION: Final = "dev.cosignproject.cosign/signature"
BUNDLE_PREFIX: Final = "application/vnd.dev.sigstore.bundle"
"""v0.3 and earlier ones differ in how they are written after this."""

_SIMPLE_TYPE: Final = "cosign container image signature"
_IN_TOTO: Final = "application/vnd.in-toto+json"
_STATEMENTS: Final = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
_SIGN: Final = "https://sigstore.dev/cosign/sign/v1"
"""What a statement says that is a signature; others (an SBOM, a scan) only say something about the image."""

Key = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class NotGood(Exception):
    """One signature that does not make an image trusted; the text says why, as in ``one is …``."""


def load_key(pem: str, name: str) -> Key:
    """A public key in PEM form; raises Refused("SignatureKeyInvalid")."""
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Refused("SignatureKeyInvalid", f"{name} is no public key in PEM form: {error}") from error
    if not isinstance(key, Key):
        raise Refused("SignatureKeyInvalid", f"{name} is a key for {type(key).__name__}; cosign signs with ECDSA, RSA "
                      "or Ed25519")  # fmt: skip
    return key


def simple_signing(payload: bytes, signature: str, keys: Sequence[Key]) -> str:
    """The digest of the image that ``payload`` is about, once ``signature`` (base64) of it is good.

    Raises NotGood.
    """
    _check(payload, _decoded(signature), keys)
    document = _object(payload)
    critical = document.get("critical")
    if not isinstance(critical, dict) or critical.get("type") != _SIMPLE_TYPE:
        raise NotGood("not a signature of a container image")
    image = critical.get("image")
    digest = image.get("docker-manifest-digest") if isinstance(image, dict) else None
    if not isinstance(digest, str):
        raise NotGood("without the digest of an image")
    return digest


def bundled(bundle: bytes, keys: Sequence[Key]) -> tuple[str, ...]:
    """The digests of the images that a bundle's statement signs, once one of its signatures is good; raises NotGood."""
    envelope = _object(bundle).get("dsseEnvelope")
    if not isinstance(envelope, dict) or envelope.get("payloadType") != _IN_TOTO:
        raise NotGood("a bundle without a signed statement")
    payload = _decoded(envelope.get("payload"))
    signatures = envelope.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise NotGood("a bundle that has not exactly one signature")  # sigstore_bundle.proto: MUST contain only one
    # DSSE's pre-authentication encoding: what is signed.
    encoded = b"DSSEv1 %d %b %d %b" % (len(_IN_TOTO), _IN_TOTO.encode(), len(payload), payload)
    _check(encoded, _decoded(signatures[0].get("sig")), keys)
    statement = _object(payload)
    if statement.get("_type") not in _STATEMENTS or statement.get("predicateType") != _SIGN:
        raise NotGood("a statement about the image, not its signature")
    subjects = statement.get("subject")
    found = [each.get("digest") for each in subjects if isinstance(each, dict)] if isinstance(subjects, list) else []
    return tuple(f"sha256:{each['sha256']}" for each in found if isinstance(each, dict) and "sha256" in each)


def _check(message: bytes, signature: bytes, keys: Sequence[Key]) -> None:
    if not any(_verifies(key, signature, message) for key in keys):
        raise NotGood("by another key")


def _verifies(key: Key, signature: bytes, message: bytes) -> bool:
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        else:
            key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _decoded(text: object) -> bytes:
    try:
        return base64.b64decode(text if isinstance(text, str) else "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise NotGood("malformed") from error


def _object(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NotGood("malformed") from error
    if not isinstance(document, dict):
        raise NotGood("malformed")
    return document
