"""``python -m nri_plugin.signature.check``: whether an image is signed by one of the keys; a process of its own.

Of its own, so that TLS and cryptography cost the daemon no memory. Reads a ``Question`` as JSON from stdin and prints
``{"reason", "sentence"}``, reason null when the image is signed.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from nri_plugin.signature.cosign import (
    BUNDLE_PREFIX,
    SIGNATURE_ANNOTATION,
    SIMPLE_SIGNING,
    Key,
    NotGood,
    bundled,
    load_key,
    simple_signing,
)
from nri_plugin.signature.hosts import hosts_of
from nri_plugin.signature.registry import Repository
from shared import oci
from shared.errors import Refused, RestoreError, Unavailable

SIGNATURES_MAX: Final = 64
"""Read of one image; more are not looked at."""
SIGNATURE_BYTES_MAX: Final = 1 << 20


def check(question: Mapping[str, Any]) -> None:
    """Raises Refused: SignatureMissing, SignatureInvalid, SignatureKeyInvalid; Unavailable("SignatureUnavailable").

    ``question``: the ``repositories`` that the image is in, its ``digests`` (manifest and index: the signature of
    either will do), ``keys`` (PEM by name), ``hosts`` (containerd's folder), ``stored`` (signature manifests from the
    node's store with their blobs by digest, base64).
    """
    keys = [load_key(pem, name) for name, pem in question["keys"].items()]
    digests = set(question["digests"])
    why: list[str] = []
    unread: list[Unavailable] = []
    for signed in _signed(question, keys, unread):
        if isinstance(signed, NotGood):
            why.append(str(signed))
        elif digests & set(signed):
            return
        else:
            why.append("of another image")
    if unread:
        raise unread[0]
    name = f"{next(iter(question['repositories']), 'an image')} ({', '.join(sorted(digests))})"
    if not why:
        raise Refused(
            "SignatureMissing",
            f"this node restores signed checkpoint images only, and {name} has no signature; sign it with cosign, as "
            "`kubectl restore build --sign-key` does",
        )
    raise Refused(
        "SignatureInvalid",
        f"this node restores checkpoint images signed by its own keys only; {name} has {len(why)} signatures, and none "
        f"is good: {', '.join(sorted(set(why)))}; sign it with the right key",
    )


def _signed(
    question: Mapping[str, Any], keys: list[Key], unread: list[Unavailable]
) -> Iterator[tuple[str, ...] | NotGood]:
    """What each signature found signs, or why it is not good; those in the node's store first.

    ``unread`` gets the errors of repositories that could not be read: another one may still have a good signature.
    """
    for each in question["stored"]:
        yield from _of_manifest(base64.b64decode(each["manifest"]), partial(_stored, each["blobs"]), keys)
    for name in question["repositories"]:
        reference = oci.parse_reference(name)
        try:
            repository = Repository(reference, hosts_of(reference.registry, Path(question["hosts"])))
            yield from _in_repository(repository, question["digests"], keys)
        except Unavailable as error:
            unread.append(error)


def _stored(blobs: Mapping[str, str], digest: str) -> bytes:
    if digest not in blobs:
        raise NotGood("not whole on the node")
    return base64.b64decode(blobs[digest])


def _in_repository(
    repository: Repository, digests: Sequence[str], keys: list[Key]
) -> Iterator[tuple[str, ...] | NotGood]:
    def blob(digest: str) -> bytes:
        return repository.blob(digest, SIGNATURE_BYTES_MAX)

    for digest in digests:
        tag = digest.replace(":", "-")
        if (manifest := repository.manifest(f"{tag}.sig")) is not None:
            yield from _of_manifest(manifest, blob, keys)
        if (index := repository.referrers(digest)) is not None:
            for referrer in _referrers(index):
                if (manifest := repository.manifest(referrer)) is not None:
                    yield from _of_manifest(manifest, blob, keys)


def _referrers(index: bytes) -> tuple[str, ...]:
    """Digests of manifests, whatever their type: cosign 3 gives another one in the tag than in the manifest itself."""
    try:
        document = oci.parse_document(index)
    except RestoreError:
        return ()
    entries = document.manifests if isinstance(document, oci.Index) else ()
    return tuple(entry.digest for entry in entries[:SIGNATURES_MAX])


def _of_manifest(manifest: bytes, blob: Callable[[str], bytes], keys: list[Key]) -> Iterator[tuple[str, ...] | NotGood]:
    try:
        document = oci.parse_document(manifest)
    except RestoreError:
        return
    if isinstance(document, oci.Index):
        return
    for layer in document.layers[:SIGNATURES_MAX]:
        try:
            if layer.media_type == SIMPLE_SIGNING:
                signature = layer.annotations.get(SIGNATURE_ANNOTATION, "")
                yield (simple_signing(blob(layer.digest), signature, keys),)
            elif layer.media_type.startswith(BUNDLE_PREFIX):
                yield bundled(blob(layer.digest), keys)
        except NotGood as error:
            yield error


def main() -> None:
    try:
        check(json.load(sys.stdin))
        verdict: dict[str, str | None] = {"kind": "Good", "reason": None, "sentence": None}
    except RestoreError as error:
        verdict = {"kind": type(error).__name__, "reason": error.reason, "sentence": error.sentence}
    print(json.dumps(verdict))


if __name__ == "__main__":
    main()
