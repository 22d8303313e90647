"""Signatures of images as a registry gives them; every one counts as verified, so that what it signs is read too."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from unittest.mock import patch

from nri_plugin.signature import check, cosign
from shared import oci
from tests.fuzz.target import Target

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


TARGETS = (Target("signature", _signature, _seeds, ()),)
