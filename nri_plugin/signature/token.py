"""``python -m nri_plugin.signature.token``: which service account a pod's own token says it has; a process of its own.

Neither NRI nor the CRI tells. What the kubelet mounts into the pod does: a token that the API server signed for this
very pod and service account, and only for the one in the pod's spec. Its expiry does not matter here: a pod's service
account never changes. Sources: Kubernetes docs, "Managing Service Accounts" (bound tokens, ``/openid/v1/jwks``);
pkg/serviceaccount/claims.go; pkg/registry/core/serviceaccount/storage/token.go; RFC 7515, 7517.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, Final

import jwt

from shared.errors import Refused, RestoreError

ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "ES256", "ES384", "ES512"})
"""What API servers sign with; the key says which, never the token."""
_UNTIMED: Final = {f"verify_{each}": False for each in ("aud", "exp", "iat", "nbf", "iss", "sub", "jti")}


def service_account(question: Mapping[str, str]) -> str:
    """The name; raises Refused("ServiceAccountUnknown").

    ``question``: ``token``, ``keys`` (a JSON Web Key Set), and the ``namespace`` and ``pod_uid`` it must be for.
    """
    try:
        keys = jwt.PyJWKSet.from_json(question["keys"])
    except (jwt.PyJWTError, ValueError, AttributeError, TypeError) as error:
        raise _unknown(f"policy.service_account_keys cannot be used: {error}") from error
    try:
        key = keys[str(jwt.get_unverified_header(question["token"]).get("kid"))]
        if key.algorithm_name not in ALGORITHMS:
            raise _unknown(f"policy.service_account_keys has a key for {key.algorithm_name}")
        claims = jwt.decode(question["token"], key, algorithms=[key.algorithm_name], options=_UNTIMED)  # type: ignore[arg-type]
    except KeyError as error:
        raise _unknown("its token is by a key that policy.service_account_keys does not have") from error
    except jwt.PyJWTError as error:
        raise _unknown(f"its token is not good: {error}") from error
    bound = claims.get("kubernetes.io")
    pod = bound.get("pod") if isinstance(bound, dict) else None
    if not isinstance(pod, dict) or pod.get("uid") != question["pod_uid"]:
        raise _unknown("its token is for another pod")
    prefix = f"system:serviceaccount:{question['namespace']}:"
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject.startswith(prefix):
        raise _unknown("its token is for another namespace")
    return subject.removeprefix(prefix)


def _unknown(why: str) -> Refused:
    return Refused(
        "ServiceAccountUnknown",
        f"this node restores for some service accounts only, and the pod's cannot be known: {why}",
    )


def main() -> None:
    answer: dict[str, Any]
    try:
        answer = {"name": service_account(json.load(sys.stdin))}
    except RestoreError as error:
        answer = {"reason": error.reason, "sentence": error.sentence}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
