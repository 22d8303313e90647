"""Whether a checkpoint image is signed as the policy wants it, asked once per image and set of keys."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from nri_plugin.config import Config
from nri_plugin.containerd.client import Containerd, NotFound
from nri_plugin.restore.images import StoredImage
from shared import oci
from shared.errors import Refused, RestoreError, Unavailable
from shared.run import run

CHECK_LIMIT_S: Final = 60.0
"""For all requests to the registry together; restore-runc waits less, and the next attempt finds the result."""
STORED_MAX: Final = 16
REPOSITORIES_MAX: Final = 4


class Signatures:
    """What was found good since the daemon's start; safe to use from several threads."""

    def __init__(self) -> None:
        self._good: set[tuple[str, str, str]] = set()
        self._guard = threading.Lock()

    def known(self, config: Config, image: StoredImage) -> bool:
        """Whether nothing needs to be asked: no signature is wanted, or one by today's keys was seen."""
        if not config.policy.signature_keys:
            return True
        with self._guard:
            return self._entry(image, _keys(config)) in self._good

    def check(self, config: Config, containerd: Containerd, image: StoredImage, names: Sequence[str]) -> None:
        """Asks the node's store and the registries of the image's ``names``; some tenths of a second to CHECK_LIMIT_S.

        Raises Refused: SignatureMissing, SignatureInvalid, SignatureKeyInvalid; Unavailable: SignatureUnavailable.
        """
        keys = _keys(config)
        digests = sorted({image.digest, image.target})
        repositories = _repositories(names)
        question = {
            "repositories": repositories,
            "digests": digests,
            "keys": keys,
            "hosts": str(config.runtime.registry_hosts),
            "stored": _stored(containerd, repositories, digests),
        }
        said = run(
            [sys.executable, "-m", "nri_plugin.signature.check"],
            timeout_s=CHECK_LIMIT_S,
            stdin=json.dumps(question).encode(),
        ).stdout
        verdict = json.loads(said)
        if verdict["reason"] is not None:
            kind = Unavailable if verdict["kind"] == "Unavailable" else Refused
            raise kind(verdict["reason"], verdict["sentence"])
        with self._guard:
            self._good.add(self._entry(image, keys))

    @staticmethod
    def _entry(image: StoredImage, keys: dict[str, str]) -> tuple[str, str, str]:
        return image.digest, image.target, hashlib.sha256("\0".join(sorted(keys.values())).encode()).hexdigest()


def _keys(config: Config) -> dict[str, str]:
    """The keys as the files have them now, by path; raises Refused("SignatureKeyInvalid")."""
    try:
        return {str(path): path.read_text(errors="replace") for path in config.policy.signature_keys}
    except OSError as error:
        raise Refused("SignatureKeyInvalid", f"the key {error.filename} cannot be read: {error.strerror}") from error


def _repositories(names: Sequence[str]) -> list[str]:
    """Where the image's names say it is from, the first name's first."""
    found = []
    for name in names:
        if not oci.is_digest(name):  # the CRI also stores each image under its id
            with suppress(RestoreError):
                found.append(oci.parse_reference(name).name)
    return list(dict.fromkeys(found))[:REPOSITORIES_MAX]


def _stored(containerd: Containerd, repositories: Sequence[str], digests: Sequence[str]) -> list[dict[str, Any]]:
    """Signatures that were brought to the node beside the image, as ``ctr content fetch`` of cosign's tag does."""
    found = []
    for name, digest in itertools.product(repositories, digests):
        try:
            target = containerd.image_target(f"{name}:{digest.replace(':', '-')}.sig")
            manifest = containerd.read_content(target.digest)
            document = oci.parse_document(manifest)
            layers = document.layers[:STORED_MAX] if isinstance(document, oci.Manifest) else ()
            blobs = {each.digest: containerd.read_content(each.digest, 1 << 20) for each in layers}
        except (NotFound, RestoreError):
            continue
        encoded = {key: base64.b64encode(blob).decode() for key, blob in blobs.items()}
        found.append({"manifest": base64.b64encode(manifest).decode(), "blobs": encoded})
    return found
