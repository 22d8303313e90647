"""The pod's service account, from the token that the kubelet mounts into it (nri_plugin/signature/token.py)."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Final

from nri_plugin.restore.request import RestoreRequest
from shared.errors import Refused
from shared.run import run

MOUNTED_AT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where the API server's ServiceAccount admission has the token mounted (plugin/pkg/admission/serviceaccount)."""
TOKEN_BYTES_MAX: Final = 64 << 10
CHECK_LIMIT_S: Final = 20.0


def service_account_of(request: RestoreRequest, keys: Path) -> str:
    """Its name; ``keys``: the cluster's JSON Web Key Set. Raises Refused("ServiceAccountUnknown")."""
    question = {
        "token": _token(request),
        "keys": _read(keys, f"{keys} cannot be read"),
        "namespace": request.pod_namespace,
        "pod_uid": request.pod_uid,
    }
    words = [sys.executable, "-m", "nri_plugin.signature.token"]
    answer = json.loads(run(words, timeout_s=CHECK_LIMIT_S, stdin=json.dumps(question).encode()).stdout)
    if "name" not in answer:
        raise Refused(answer["reason"], answer["sentence"])
    return str(answer["name"])


def _token(request: RestoreRequest) -> str:
    missing = "the container has no service-account token (automountServiceAccountToken: false)"
    for mount in request.mounts:
        if mount.destination == MOUNTED_AT:
            return _read(Path(mount.source) / "token", missing)
    raise _unknown(missing)


def _read(path: Path, otherwise: str) -> str:
    """A text file's content. A pod may have put anything there: nothing but a regular file is waited for or read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unknown(otherwise) from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _unknown(otherwise)
        return file.read(TOKEN_BYTES_MAX).decode(errors="replace")


def _unknown(why: str) -> Refused:
    return Refused(
        "ServiceAccountUnknown",
        f"this node restores for some service accounts only, and the pod's cannot be known: {why}",
    )
